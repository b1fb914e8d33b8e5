//! `[profile.NAME.network.names]`: how names may look that only a rule with `*` allows.

use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::super::{
    check::Checker,
    model::{NameLimits, Rate},
    parse::{Keys, Value},
};
use crate::api::time::parse_span;

const NAMES: Keys = Keys {
    place: "`network.names`",
    known: &["length", "labels", "label", "long", "entropy", "rate"],
    later: &[],
};

/// Bits a character, at most: a character is a byte.
const MOST_ENTROPY: f64 = 8.0;
/// Names, and in which time.
const MOST_NAMES: u32 = 1_000_000;
const LONGEST_TIME: u64 = 24 * 60 * 60 * 1000;

impl Checker<'_> {
    /// Reads the table of a profile.
    pub(super) fn limits(&mut self, table: &DeTable<'_>) -> NameLimits {
        self.report.keys(table, &NAMES);
        let mut limits = NameLimits::default();
        let numbers: [(&str, &mut u8, u8); 4] = [
            ("length", &mut limits.length, 253),
            ("labels", &mut limits.labels, 127),
            ("label", &mut limits.label, 63),
            ("long", &mut limits.long, 63),
        ];
        for (key, limit, most) in numbers {
            if let Some(number) = table.get(key).and_then(|value| self.limit(value, key, most)) {
                *limit = number;
            }
        }
        if let Some(entropy) = table.get("entropy").and_then(|value| self.entropy(value)) {
            limits.entropy = entropy;
        }
        if let Some(rate) = table.get("rate").and_then(|value| self.rate(value)) {
            limits.rate = rate;
        }
        limits
    }

    fn limit(&mut self, value: &Value<'_>, key: &str, most: u8) -> Option<u8> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => u8::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let number = number.filter(|number| (1..=most).contains(number));
        if number.is_none() {
            let help = format!("it is a number from 1 to {most}");
            self.report.error_help(&value.span(), format!("`{key}` can't be that"), help);
        }
        number
    }

    /// In thousandths of a bit.
    fn entropy(&mut self, value: &Value<'_>) -> Option<u16> {
        let number: Option<f64> = match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| *number > 0.0 && *number <= MOST_ENTROPY);
        if number.is_none() {
            self.report.error_help(
                &value.span(),
                "`entropy` can't be that",
                format!("it is a number of bits a character, above 0 and up to {MOST_ENTROPY}, as 4.25"),
            );
        }
        // From 0 to 8000.
        number.map(|number| (number * 1000.0).round() as u16)
    }

    fn rate(&mut self, value: &Value<'_>) -> Option<Rate> {
        let text = self.report.string(value, "`rate`")?;
        let rate = text.split_once('/').and_then(|(count, per)| {
            let count = count.parse().ok().filter(|count| (1..=MOST_NAMES).contains(count))?;
            let ms = parse_span(per).filter(|ms| (1000..=LONGEST_TIME).contains(ms) && ms % 1000 == 0)?;
            Some(Rate { count, per: Duration::from_millis(ms) })
        });
        if rate.is_none() {
            self.report.error_help(
                &value.span(),
                format!("{text:?} is no rate"),
                format!("write how many names in which time, as `300/1m`: 1 to {MOST_NAMES}, in 1s to 24h"),
            );
        }
        rate
    }
}
