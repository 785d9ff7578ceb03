//! Figures: their units, the statistics of many rounds, and the comparison of two of them. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The unit of a figure, which also says whether more of it is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    PerSecond,
    Bytes,
    Percent,
}

impl Unit {
    pub(crate) fn more_is_better(self) -> bool {
        self == Self::PerSecond
    }

    /// A round figure, as on an axis: without zeros behind the point.
    pub(crate) fn format_round(self, figure: f64) -> String {
        self.format(figure).replacen(".00", "", 1).replacen(".0", "", 1)
    }

    /// A figure with three digits, and the unit that suits it.
    pub(crate) fn format(self, figure: f64) -> String {
        let scaled = |steps: &[(f64, &str)]| {
            let last = steps.len() - 1;
            // The step of the digits that are shown: 999.9 of one is 1.00 of the next.
            let step = steps.iter().position(|(size, _)| figure.abs() < size * 999.5).unwrap_or(last);
            let (size, name) = steps[step];
            format!("{}{name}", digits(figure / size))
        };
        match self {
            Self::Seconds => scaled(&[(1e-9, " ns"), (1e-6, " µs"), (1e-3, " ms"), (1.0, " s")]),
            Self::PerSecond => scaled(&[(1.0, "/s"), (1e3, " k/s"), (1e6, " M/s")]),
            Self::Bytes => scaled(&[(1.0, " B"), (1e3, " kB"), (1e6, " MB"), (1e9, " GB")]),
            Self::Percent => format!("{figure:.1} %"),
        }
    }
}

/// A number with three digits that count, or none behind the point.
pub(crate) fn digits(number: f64) -> String {
    match number.abs() {
        size if size < 0.0005 => "0".to_owned(),
        size if size < 9.995 => format!("{number:.2}"),
        size if size < 99.95 => format!("{number:.1}"),
        size if size < 9999.5 => format!("{number:.0}"),
        _ => with_commas(number),
    }
}

fn with_commas(number: f64) -> String {
    let plain = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 { format!("-{text}") } else { text }
}

/// The median of figures; of an even number of them, between the two in the middle.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The statistics of a contender's rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Of no rounds there is none.
    pub(crate) fn of(figures: &[f64]) -> Option<Self> {
        let (low, high) = figures.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &figure| {
            (low.min(figure), high.max(figure))
        });
        Some(Self { median: median(figures)?, low, high })
    }
}

/// How many times as good one figure is as another, in any unit: twice as fast is 2.
pub(crate) fn times_as_good(unit: Unit, ours: f64, theirs: f64) -> f64 {
    if unit.more_is_better() { ours / theirs } else { theirs / ours }
}

/// A ratio as it is read: `12.3 ×`.
pub(crate) struct Times(pub(crate) f64);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ×", digits(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_in_any_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn a_spread_goes_from_the_least_to_the_most() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[2.0, 8.0, 3.0]), Some(Spread { median: 3.0, low: 2.0, high: 8.0 }));
    }

    #[test]
    fn ratios_say_how_much_better_whatever_the_unit() {
        assert_eq!(times_as_good(Unit::Seconds, 1e-6, 3e-4).round(), 300.0);
        assert_eq!(times_as_good(Unit::PerSecond, 1e6, 5e3), 200.0);
        assert_eq!(times_as_good(Unit::Bytes, 30e6, 15e6), 0.5);
    }

    #[test]
    fn figures_have_three_digits_and_the_unit_that_suits_them() {
        let check = |unit: Unit, figure: f64, text: &str| assert_eq!(unit.format(figure), text);
        check(Unit::Seconds, 0.0, "0 ns");
        check(Unit::Seconds, 44.123e-6, "44.1 µs");
        check(Unit::Seconds, 999.9e-9, "1.00 µs");
        check(Unit::Seconds, 3.24, "3.24 s");
        check(Unit::Seconds, 120.0, "120 s");
        check(Unit::PerSecond, 1.97, "1.97/s");
        check(Unit::PerSecond, 1_234_567.0, "1.23 M/s");
        check(Unit::Bytes, 582e6, "582 MB");
        check(Unit::Bytes, 104.0, "104 B");
        check(Unit::Percent, 0.04, "0.0 %");
        assert_eq!(Unit::Seconds.format_round(1e-6), "1 µs");
        assert_eq!(Unit::Seconds.format_round(2.5e-6), "2.50 µs");
        assert_eq!(Times(12_345.6).to_string(), "12,346 ×");
        assert_eq!(Times(0.914).to_string(), "0.91 ×");
    }
}
