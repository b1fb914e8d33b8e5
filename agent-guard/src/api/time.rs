//! A point in time as the API and the events have it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeStruct};

/// Milliseconds since the epoch. As JSON `{"ms": 1764590584123, "rfc3339": "2025-12-01T12:03:04.123Z"}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// In UTC with milliseconds, as RFC 3339 has it.
    #[must_use]
    pub fn rfc3339(self) -> String {
        format!("{:.3}", self.timestamp())
    }

    /// In the host's time zone: with the date unless it is today's.
    #[must_use]
    pub fn local(self) -> String {
        let zone = jiff::tz::TimeZone::system();
        let there = self.timestamp().to_zoned(zone.clone());
        let today = Self::now().timestamp().to_zoned(zone);
        let format = if there.date() == today.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
        there.strftime(format).to_string()
    }

    /// Reads RFC 3339.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let at: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(at.as_millisecond()).ok().map(Self)
    }

    fn timestamp(self) -> jiff::Timestamp {
        i64::try_from(self.0)
            .ok()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .unwrap_or(jiff::Timestamp::MAX)
    }
}

impl From<SystemTime> for Time {
    fn from(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Time", 2)?;
        out.serialize_field("ms", &self.0)?;
        out.serialize_field("rfc3339", &self.rfc3339())?;
        out.end()
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            ms: u64,
        }
        Wire::deserialize(deserializer).map(|wire| Self(wire.ms))
    }
}

/// Reads a span of time such as `90s`, `10m`, `1h30m` or `2d`; milliseconds.
#[must_use]
pub fn parse_span(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(ms)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_form_is_stable() {
        let at = Time(1_764_590_584_123);
        let json = serde_json::to_string(&at).unwrap();
        assert_eq!(json, r#"{"ms":1764590584123,"rfc3339":"2025-12-01T12:03:04.123Z"}"#);
        assert_eq!(serde_json::from_str::<Time>(&json).unwrap(), at);
        assert_eq!(Time::parse("2025-12-01T12:03:04.123Z"), Some(at));
        assert_eq!(Time(0).rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_ne!(Time(u64::MAX).rfc3339(), "");
    }

    #[test]
    fn spans() {
        assert_eq!(parse_span("90s"), Some(90_000));
        assert_eq!(parse_span("1h30m"), Some(5_400_000));
        assert_eq!(parse_span("2d"), Some(172_800_000));
        for bad in ["", "10", "m", "10x", "-1m", "1.5h", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_span(bad), None, "{bad}");
        }
    }
}
