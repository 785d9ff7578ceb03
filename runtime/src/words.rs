//! Numbers as words, for texts that people read.

use mobula_client::internal::ByteSize;

/// The unit after the amounts of memory that demands and waits have in their texts.
const BYTES_OF_MEMORY: &str = " bytes of memory";

/// A length of time: three digits and a unit.
pub fn seconds(seconds: f64) -> String {
    let (number, unit) = match seconds {
        _ if seconds < 1e-3 => (seconds * 1e6, "µs"),
        _ if seconds < 1.0 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    match number {
        _ if number < 10.0 => format!("{number:.2} {unit}"),
        _ if number < 100.0 => format!("{number:.1} {unit}"),
        _ => format!("{number:.0} {unit}"),
    }
}

/// A number of things, such as `1 object` or `2 processes`.
pub fn count(number: u64, noun: &str) -> String {
    let ending = match number {
        1 => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{number} {noun}{ending}")
}

/// An amount of a resource, such as `2 CPU` or `1.5 GiB memory`.
pub fn amount(name: &str, amount: f64) -> String {
    match name {
        "memory" | "object_store_memory" => format!("{} {name}", ByteSize(amount.max(0.0) as u64)),
        _ => format!("{amount} {name}"),
    }
}

/// The text with its amounts of memory as sizes: `4194304 bytes of memory` becomes `4 MiB of memory`.
pub fn with_sizes(text: &str) -> String {
    let mut parts = text.split(BYTES_OF_MEMORY);
    let mut changed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = changed.bytes().rev().take_while(u8::is_ascii_digit).count();
        let start = changed.len() - digits;
        match changed[start..].parse::<u64>() {
            Ok(bytes) => {
                changed.truncate(start);
                changed += &format!("{} of memory", ByteSize(bytes));
            }
            Err(_) => changed += BYTES_OF_MEMORY,
        }
        changed += part;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let shown = [2.5e-6, 0.0123, 4.0, 100.0].map(seconds);
        assert_eq!(shown, ["2.50 µs", "12.3 ms", "4.00 s", "100 s"]);
    }

    #[test]
    fn one_thing_is_singular() {
        let shown = [(0, "object"), (1, "actor"), (2, "actor"), (1, "process"), (2, "process")];
        let shown = shown.map(|(number, noun)| count(number, noun));
        assert_eq!(shown, ["0 objects", "1 actor", "2 actors", "1 process", "2 processes"]);
    }

    #[test]
    fn amounts_of_memory_are_sizes() {
        assert_eq!(amount("memory", 1073741824.0), "1 GiB memory");
        assert_eq!(amount("CPU", 0.5), "0.5 CPU");
        for (text, expected) in [
            ("1 CPU, 4194304 bytes of memory", "1 CPU, 4 MiB of memory"),
            ("1048576 bytes of memory and 7 bytes of memory", "1 MiB of memory and 7 B of memory"),
            ("no bytes of memory", "no bytes of memory"),
            ("2 CPU", "2 CPU"),
        ] {
            assert_eq!(with_sizes(text), expected);
        }
    }
}
