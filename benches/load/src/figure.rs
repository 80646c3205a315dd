//! Single numbers of a run, and how several runs' numbers become one.

use serde::{Deserialize, Serialize};

use crate::latency::Histogram;

/// How the numbers of several rounds become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// What is measured: the median.
    Median,
    /// What must not happen: the largest, so that no median hides it.
    Worst,
}

/// One number of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// With its unit.
    pub name: String,
    pub value: f64,
    pub merge: Merge,
}

/// A measured number.
pub fn figure(name: impl Into<String>, value: f64) -> Figure {
    Figure { name: name.into(), value, merge: Merge::Median }
}

/// A count of what must not happen.
pub fn fault(name: impl Into<String>, count: u64) -> Figure {
    Figure { name: name.into(), value: count as f64, merge: Merge::Worst }
}

/// The usual quantiles of times, in milliseconds, after a word that says which times.
pub fn quantiles(what: &str, times: &Histogram, shares: &[f64]) -> Vec<Figure> {
    let name = |quantile: &str| {
        if what.is_empty() { format!("{quantile} ms") } else { format!("{what} {quantile} ms") }
    };
    let mut figures: Vec<_> = shares
        .iter()
        .map(|share| figure(name(&format!("p{}", share * 100.0)), times.quantile_ms(*share)))
        .collect();
    figures.push(figure(name("max"), times.max_ms()));
    figures
}

/// The one number of several rounds.
pub fn merged(values: &[f64], merge: Merge) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match merge {
        _ if values.is_empty() => 0.0,
        Merge::Worst => values[values.len() - 1],
        Merge::Median if values.len() % 2 == 1 => values[middle],
        Merge::Median => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// A number as tables show it: three digits that count, or whole with separators between thousands.
pub fn shown(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        _ if value.fract() == 0.0 => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if decimals > 0 { text } else { separated(&text) }
}

fn separated(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_become_one() {
        assert_eq!(merged(&[3.0, 1.0, 2.0], Merge::Median), 2.0);
        assert_eq!(merged(&[4.0, 1.0, 2.0, 3.0], Merge::Median), 2.5);
        assert_eq!(merged(&[0.0, 5.0, 0.0], Merge::Worst), 5.0);
        assert_eq!(merged(&[], Merge::Median), 0.0);
    }

    #[test]
    fn numbers_are_shown_short() {
        let cases = [
            (0.0, "0"),
            (3.0, "3"),
            (0.12345, "0.123"),
            (1.5, "1.50"),
            (42.07, "42.1"),
            (123.6, "124"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
            (-123.0, "-123"),
        ];
        for (value, text) in cases {
            assert_eq!(shown(value), text);
        }
    }

    #[test]
    fn quantiles_are_named() {
        let mut times = Histogram::default();
        times.record(1500);
        let names: Vec<_> =
            quantiles("call", &times, &[0.5, 0.999]).into_iter().map(|figure| figure.name).collect();
        assert_eq!(names, ["call p50 ms", "call p99.9 ms", "call max ms"]);
    }
}
