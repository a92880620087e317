//! Times as RFC 3339 has them: written in UTC for any year; read in UTC from 1970 to 9999, or all that it can say.

use super::Timestamp;

const DAY_SECONDS: i64 = 86400;

/// To the second, or with nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// `2001-02-03T04:05:06Z`
    Seconds,
    /// `2001-02-03T04:05:06.000000007Z`
    Nanoseconds,
}

/// A time as text.
#[must_use]
pub fn text(time: Timestamp, precision: Precision) -> String {
    let (days, rest) = (time.secs.div_euclid(DAY_SECONDS), time.secs.rem_euclid(DAY_SECONDS));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let fraction = match precision {
        Precision::Seconds => String::new(),
        Precision::Nanoseconds => format!(".{:09}", time.nanos),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Reads what [`text`] writes, with any number of digits behind the second up to nine.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    read(text.strip_suffix('Z')?).filter(|time| time.secs >= 0)
}

/// Reads any time of the years 0 to 9999, also one with an offset from UTC (RFC 3339, section 5.6); no leap seconds.
#[must_use]
pub fn parse_with_offset(text: &str) -> Option<Timestamp> {
    if let Some(text) = text.strip_suffix('Z') {
        return read(text);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let [sign, clock @ ..] = offset.as_bytes() else { return None };
    let [h, i, b':', m, n] = clock else { return None };
    let digit = |digit: &u8| digit.is_ascii_digit().then(|| i64::from(digit - b'0'));
    let (hours, minutes) = (digit(h)? * 10 + digit(i)?, digit(m)? * 10 + digit(n)?);
    let seconds = match sign {
        b'+' => hours * 3600 + minutes * 60,
        b'-' => -(hours * 3600 + minutes * 60),
        _ => return None,
    };
    let time = read(local).filter(|_| hours < 24 && minutes < 60)?;
    Some(Timestamp { secs: time.secs - seconds, ..time })
}

/// Reads date and time of day.
fn read(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let in_range = (0..10000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let digits_only = fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !in_range || hour > 23 || minute > 59 || second > 59 || fraction.len() > 9 || !digits_only {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    let days = days_before(year, month, day);
    // Refuses the 31st of a month of 30 days.
    let is_real = civil(days) == (year, month, day);
    is_real.then_some(Timestamp { secs: days * DAY_SECONDS + hour * 3600 + minute * 60 + second, nanos })
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let number = |part: &str| part.parse::<u32>().ok().map(i64::from);
    let parts: Vec<i64> = text.split(separator).map(number).collect::<Option<_>>()?;
    parts.try_into().ok()
}

/// The day of the proleptic Gregorian calendar that is so many days after 1970-01-01. Counted in eras of 400 years, each
/// beginning with a March, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The other way round.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let (year, from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn print_and_parse(secs in 0..253_402_300_800_i64, nanos in 0..1_000_000_000_u32) {
            let time = Timestamp { secs, nanos };
            prop_assert_eq!(parse(&text(time, Precision::Nanoseconds)), Some(time));
        }

        #[test]
        fn days_are_counted_both_ways(days in -1_000_000_000_i64..1_000_000_000) {
            let (year, month, day) = civil(days);
            prop_assert_eq!(days_before(year, month, day), days);
        }
    }

    #[test]
    fn offsets_and_years_before_1970() {
        for (text, time) in [
            ("1970-01-01T00:00:00Z", Some((0, 0))),
            ("1969-12-31T12:00:00.5Z", Some((-43_200, 500_000_000))),
            ("0001-01-01T00:00:00Z", Some((-62_135_596_800, 0))),
            ("2001-02-03T04:05:06.000000007+01:30", Some((981_167_706, 7))),
            ("2001-02-03T04:05:06-12:00", Some((981_216_306, 0))),
            ("2001-02-03T04:05:06", None),
            ("2001-02-03T04:05:06+1:30", None),
            ("2001-02-03T04:05:06+24:00", None),
            ("2001-02-03T04:05:06 01:30", None),
            ("2001-02-30T04:05:06Z", None),
            ("+01:00", None),
            ("\u{e9}\u{e9}\u{e9}", None),
            ("", None),
        ] {
            let time = time.map(|(secs, nanos)| Timestamp { secs, nanos });
            assert_eq!(parse_with_offset(text), time, "{text}");
        }
        assert_eq!(parse("1969-12-31T23:59:59Z"), None);
        assert_eq!(parse("2001-02-03T04:05:06+00:00"), None);
    }

    #[test]
    fn as_date_says() {
        for secs in
            [0, -1, 951_782_400, 951_868_799, 4_102_444_800, -2_208_988_800, 1_700_000_000, -62_135_596_800]
        {
            let mut date = Command::new("date");
            date.args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("@{secs}")]);
            let expected = String::from_utf8(date.output().unwrap().stdout).unwrap();
            assert_eq!(text(Timestamp { secs, nanos: 0 }, Precision::Seconds), expected.trim(), "{secs}");
        }
        let time = Timestamp { secs: -2, nanos: 500_000_000 };
        assert_eq!(text(time, Precision::Nanoseconds), "1969-12-31T23:59:58.500000000Z");
        for secs in [i64::MIN, i64::MAX] {
            assert!(text(Timestamp { secs, nanos: 0 }, Precision::Seconds).ends_with("Z"));
        }
    }
}
