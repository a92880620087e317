//! Times of any year as RFC 3339 has them, UTC.

use crate::model::Timestamp;

const DAY_SECONDS: i64 = 86400;

/// To the second, or with nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    Seconds,
    Nanoseconds,
}

pub(super) fn text(time: Timestamp, precision: Precision) -> String {
    let (days, rest) = (time.secs.div_euclid(DAY_SECONDS), time.secs.rem_euclid(DAY_SECONDS));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let fraction = match precision {
        Precision::Seconds => String::new(),
        Precision::Nanoseconds => format!(".{:09}", time.nanos),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

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
            text(Timestamp { secs, nanos: 0 }, Precision::Seconds);
        }
    }
}
