//! Byte sizes as people write them: `2GiB`, `512 MiB`. There is no form with an exponent, so each size is unambiguous.

use std::fmt;
use std::str::FromStr;

/// A number of bytes that parses from, and prints as, text with a unit.
///
/// ```
/// use mobula_protocol::size::ByteSize;
/// assert_eq!("2GiB".parse(), Ok(ByteSize(2 << 30)));
/// assert_eq!("1.5 MiB".parse(), Ok(ByteSize(3 << 19)));
/// assert_eq!("10kB".parse(), Ok(ByteSize(10_000)));
/// assert_eq!(ByteSize(3 << 19).to_string(), "1.5 MiB");
/// assert!("2GiBB".parse::<ByteSize>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("TIB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// The text is not a size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a size: {0:?} (expected a number and B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, as in \"512MiB\")"
)]
pub struct ParseSizeError(String);

impl FromStr for ByteSize {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseSizeError(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let unit = unit.trim_start().to_ascii_uppercase();
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(*factor).map(Self).ok_or_else(error);
        }
        let value = number.parse::<f64>().map_err(|_| error())? * *factor as f64;
        if value.is_finite() && value < u64::MAX as f64 { Ok(Self(value as u64)) } else { Err(error()) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= factor {
                let value = self.0 as f64 / factor as f64;
                return if value.fract() == 0.0 {
                    write!(f, "{value} {name}")
                } else {
                    write!(f, "{value:.1} {name}")
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_or_say_what_was_expected() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(text.parse::<ByteSize>().ok(), expected.map(ByteSize), "{text:?}");
        };
        check("0", Some(0));
        check("4096", Some(4096));
        check(" 2 gib ", Some(2 << 30));
        check("0.5KiB", Some(512));
        check("", None);
        check("GiB", None);
        check("2GiBB", None);
        check("-1", None);
        check("1..5", None);
        check("99999999999999999999", None);
        check("20000000TiB", None);
    }
}
