//! Dates and times of a header (PS3.5 section 6.2: DA, TM, DT) → a moment on the scanner's clock.
//!
//! Moments are only compared with each other within one study, so offsets from UTC are not read.

use jiff::civil::{Date, DateTime, Time, date};

/// Stands for a date that is not stated. A time alone still tells what came first.
const NO_DATE: Date = date(1, 1, 1);

/// Of a date (DA) and a time (TM); `None` without a time.
pub(super) fn of_date_and_time(date: &str, time: &str) -> Option<DateTime> {
    let date = read_date(date).unwrap_or(NO_DATE);
    Some(DateTime::from_parts(date, read_time(time)?))
}

/// Of a date and time in one (DT); `None` unless both are there.
pub(super) fn of_date_time(text: &str) -> Option<DateTime> {
    let local = text.split(['+', '-']).next()?.trim();
    let (day, time) = local.split_at_checked(8)?;
    Some(DateTime::from_parts(read_date(day)?, read_time(time)?))
}

/// Whether the date of `moment` was stated.
pub(crate) fn has_date(moment: DateTime) -> bool {
    moment.date() != NO_DATE
}

/// `20260115`, or the old `2026.01.15`.
fn read_date(text: &str) -> Option<Date> {
    let digits: String = text.trim().chars().filter(|one| *one != '.').collect();
    if digits.len() != 8 {
        return None;
    }
    let year = digits.get(..4)?.parse().ok()?;
    let month = digits.get(4..6)?.parse().ok()?;
    let day = digits.get(6..)?.parse().ok()?;
    Date::new(year, month, day).ok()
}

/// `080010.25`, less precise (`0800`), or the old `08:00:10`.
fn read_time(text: &str) -> Option<Time> {
    let text: String = text.trim().chars().filter(|one| *one != ':').collect();
    let (whole, fraction) = text.split_once('.').unwrap_or((text.as_str(), ""));
    let part = |from: usize| whole.get(from..from + 2)?.parse::<i8>().ok();
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let (minute, second) = match whole.len() {
        2 => (0, 0),
        4 => (part(2)?, 0),
        6 => (part(2)?, part(4)?),
        _ => return None,
    };
    // A leap second is read as the second before it.
    Time::new(part(0)?, minute, second.min(59), nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_read_as_scanners_write_them() {
        for (day, time, expected) in [
            ("20260115", "080010", "2026-01-15T08:00:10"),
            ("20260115", "080010.250000", "2026-01-15T08:00:10.25"),
            ("2026.01.15", "08:00:10", "2026-01-15T08:00:10"),
            ("20260115", "0800", "2026-01-15T08:00:00"),
            ("20260115", "08", "2026-01-15T08:00:00"),
            ("20260115", "235960", "2026-01-15T23:59:59"),
            ("", "080010", "0001-01-01T08:00:10"),
        ] {
            let moment = of_date_and_time(day, time).unwrap();
            assert_eq!(moment.to_string(), expected, "{day} {time}");
            assert_eq!(has_date(moment), !day.is_empty());
        }
        let joined = of_date_time("20260115080010.5+0600").unwrap();
        assert_eq!(joined.to_string(), "2026-01-15T08:00:10.5");
    }

    #[test]
    fn what_is_no_time_is_none() {
        for (day, time) in [
            ("20260115", ""),
            ("20260115", "8"),
            ("20260115", "2500"),
            ("20260115", "ab"),
            ("20260115", "080010.x"),
        ] {
            assert_eq!(of_date_and_time(day, time), None, "{day} {time}");
        }
        for text in ["", "20260115", "2026", "20261315080010", "день08001080"] {
            assert_eq!(of_date_time(text), None, "{text}");
        }
    }
}
