//! Points in time as people type them.

use std::time::Duration;

use super::Moment;

/// A moment: as documents have it, as seconds since 1970, or as a time before `now`.
#[must_use]
pub fn parse(text: &str, now: Moment) -> Option<Moment> {
    if let Ok(moment) = text.parse() {
        return Some(moment);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok().map(Moment::after_1970);
    }
    duration(text).map(|before| now.before(before))
}

/// As Go has it: `1h30m`, `1.5s`, `300ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|letter: char| letter.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let now = Moment::from_seconds(100_000);
        let at = |text| parse(text, now);
        let seconds = |seconds| Some(Moment::from_seconds(seconds));
        assert_eq!(at("1970-01-01T00:16:40Z"), seconds(1000));
        assert_eq!(at("1000"), seconds(1000));
        assert_eq!(at("10m"), seconds(100_000 - 600));
        assert_eq!(at("1h30m5s"), seconds(100_000 - 5405));
        assert_eq!(at("2000ms"), seconds(99_998));
        assert_eq!(at("0.5h"), seconds(98_200));
        assert_eq!(at("1000h"), seconds(0), "before 1970 there is nothing");
        for wrong in ["", "x", "5x", "m", "-5", "1h30", "inf", "1e300s"] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }
}
