//! Timestamps as the contract writes them: RFC 3339, UTC, milliseconds, `Z`.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, Utc};

/// A time in whole milliseconds since the Unix epoch, from the year 1970 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

/// The last millisecond that RFC 3339 can write (9999-12-31T23:59:59.999Z).
const MAX_MILLIS: u64 = 253_402_300_799_999;

/// A text that is neither an RFC 3339 time nor Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be an RFC 3339 time or Unix milliseconds, got {0:?}")]
pub struct InvalidTimestamp(String);

impl Timestamp {
    /// The time `millis` milliseconds after the Unix epoch. `None` after the year 9999.
    pub fn from_millis(millis: u64) -> Option<Self> {
        (millis <= MAX_MILLIS).then_some(Self(millis))
    }

    /// The current time, by the clock of the system.
    pub fn now() -> Self {
        let millis = u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0);
        Self(millis.min(MAX_MILLIS))
    }

    /// Milliseconds since the Unix epoch.
    pub fn millis(self) -> u64 {
        self.0
    }

    /// The time `span` later, but not after the year 9999.
    pub fn after(self, span: Duration) -> Self {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis).min(MAX_MILLIS))
    }

    /// The time `span` earlier, but not before the epoch.
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.0 / MILLIS_PER_DAY, self.0 % MILLIS_PER_DAY);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        for (value, place) in [
            (year, 0..4),
            (month, 5..7),
            (day, 8..10),
            (hour, 11..13),
            (minute, 14..16),
            (second, 17..19),
            (rest % 1000, 20..23),
        ] {
            write_digits(value, &mut text[place]);
        }
        f.write_str(std::str::from_utf8(&text).expect("digits are ASCII"))
    }
}

const MILLIS_PER_DAY: u64 = 86_400_000;

/// Year, month and day, `days` days after the epoch (Howard Hinnant's `civil_from_days`, without days before the
/// epoch). It is called for every event, and a calendar library would be much slower.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn write_digits(mut value: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    /// Reads RFC 3339 with any offset, or Unix milliseconds.
    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let invalid = || InvalidTimestamp(text.chars().take(64).collect());
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().ok().and_then(Self::from_millis).ok_or_else(invalid);
        }
        let moment = DateTime::parse_from_rfc3339(text).map_err(|_| invalid())?;
        u64::try_from(moment.timestamp_millis()).ok().and_then(Self::from_millis).ok_or_else(invalid)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_both_forms() {
        let moment = Timestamp::from_millis(1_700_000_000_123).unwrap();
        assert_eq!(moment.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!("1700000000123".parse(), Ok(moment));
        assert_eq!("2023-11-14T23:13:20.123+01:00".parse(), Ok(moment));
        for wrong in ["", "yesterday", "-1", "1e3", "99999999999999999999", "2023-11-14"] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn the_calendar_is_the_common_one(millis in 0..=MAX_MILLIS) {
            let moment = DateTime::<Utc>::from_timestamp_millis(millis.cast_signed()).unwrap();
            let written = moment.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            prop_assert_eq!(Timestamp(millis).to_string(), written);
        }

        #[test]
        fn text_and_order_agree(a in 0..=MAX_MILLIS, b in 0..=MAX_MILLIS) {
            let (a, b) = (Timestamp(a), Timestamp(b));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
        }
    }
}
