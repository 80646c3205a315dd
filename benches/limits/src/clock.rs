//! The time of an event, as it is written in it.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

/// A moment in whole milliseconds, and its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since the Unix epoch.
    pub millis: u64,
    /// RFC 3339, UTC, milliseconds, `Z`.
    text: [u8; TEXT],
}

const TEXT: usize = "2026-01-01T00:00:00.000Z".len();
const DAY: u64 = 24 * 60 * 60;

impl Moment {
    fn new(millis: u64) -> Self {
        let seconds = millis / 1000;
        let (year, month, day) = date(seconds / DAY);
        let second = seconds % DAY;
        let mut text = *b"0000-00-00T00:00:00.000Z";
        digits(&mut text[0..4], year);
        digits(&mut text[5..7], month);
        digits(&mut text[8..10], day);
        digits(&mut text[11..13], second / 3600);
        digits(&mut text[14..16], second / 60 % 60);
        digits(&mut text[17..19], second % 60);
        digits(&mut text[20..23], millis % 1000);
        Self { millis, text }
    }

    /// The text's bytes.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.iter().try_for_each(|&digit| fmt::Write::write_char(f, digit.into()))
    }
}

/// Fills a field with the last decimal digits of a number.
fn digits(field: &mut [u8], mut number: u64) {
    for place in field.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of the Gregorian calendar. Years are taken to begin in March, so that the day that a leap year
/// has more is its last one.
fn date(days_since_epoch: u64) -> (u64, u64, u64) {
    const FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    const FOUR_CENTURIES: u64 = 146_097;
    let days = days_since_epoch + FROM_MARCH_OF_YEAR_0;
    let (era, day_of_era) = (days / FOUR_CENTURIES, days % FOUR_CENTURIES);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on months alternate between 31 and 30 days, five of them having 153.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The system's clock, which writes a text once a millisecond.
#[derive(Debug)]
pub struct Clock(Moment);

impl Clock {
    pub fn new() -> Self {
        Self(Moment::new(0))
    }

    /// The present.
    pub fn now(&mut self) -> Moment {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        if millis != self.0.millis {
            self.0 = Moment::new(millis);
        }
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_moments() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (1_767_225_599_001, "2025-12-31T23:59:59.001Z"),
            (1_767_225_600_000, "2026-01-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (millis, text) in cases {
            assert_eq!(Moment::new(millis).to_string(), text);
        }
    }
}
