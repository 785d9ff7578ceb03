//! The options that every list has: to select, sort and limit rows.

use std::cmp::Ordering;
use std::error::Error;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::list::Row;
use crate::session::Look;

/// The options of a list.
#[derive(Debug, clap::Args)]
pub(crate) struct Rows {
    #[command(flatten)]
    pub(crate) look: Look,
    /// Show only rows in this state.
    #[arg(long)]
    state: Option<String>,
    /// Show only rows of functions, or classes, with this name; a `*` stands for any text.
    #[arg(long, value_name = "PATTERN")]
    function: Option<String>,
    /// Show only rows in which a key of the JSON has this value, or does not have it (`KEY!=VALUE`); a `*` stands for
    /// any text. May be given several times.
    #[arg(long = "where", value_name = "KEY=VALUE")]
    filters: Vec<Filter>,
    /// Sort the rows by this key of the JSON: numbers from the largest, text from A. Without it, each list has its own
    /// order.
    #[arg(long, value_name = "KEY")]
    sort: Option<String>,
    /// Reverse the order.
    #[arg(long)]
    reverse: bool,
    /// Show at most this number of rows.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

/// A condition for rows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    key: String,
    pattern: String,
    is_equal: bool,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((key, pattern)) = text.split_once('=') else {
            return Err("expected KEY=VALUE or KEY!=VALUE".to_owned());
        };
        let (key, is_equal) = key.strip_suffix('!').map_or((key, true), |key| (key, false));
        Ok(Self { key: key.trim().to_owned(), pattern: pattern.trim().to_owned(), is_equal })
    }
}

impl Rows {
    /// Prints the selected rows, as JSON or as text. `lost` is the number of overwritten events: because of them, rows
    /// may be missing.
    pub(crate) fn show<T: Row>(
        &self,
        name: &str,
        mut rows: Vec<T>,
        lost: u64,
        text: impl FnOnce(&[T]) -> String,
    ) -> Result<(), Box<dyn Error>> {
        let is_of = |pattern: &String, row: &T| row.function().is_some_and(|it| matches(pattern, it));
        rows.retain(|row| {
            self.state.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&row.state()))
                && self.function.as_ref().is_none_or(|pattern| is_of(pattern, row))
        });
        let mut rows = self.chosen(rows)?;
        if self.reverse {
            rows.reverse();
        }
        let total = rows.len();
        rows.truncate(self.limit);
        let found = json!({ name: rows, "total": total, "overwritten_events": lost });
        self.look.show(&found, || {
            let mut shown = text(&rows);
            if total > rows.len() {
                shown += &format!("  {} of {total}: --limit shows more\n", rows.len());
            }
            shown
        })
    }

    /// The rows that pass all filters, sorted.
    fn chosen<T: Serialize>(&self, rows: Vec<T>) -> Result<Vec<T>, Box<dyn Error>> {
        if self.filters.is_empty() && self.sort.is_none() {
            return Ok(rows);
        }
        let mut with_keys = Vec::with_capacity(rows.len());
        for row in rows {
            let keys = serde_json::to_value(&row)?;
            for key in self.filters.iter().map(|filter| &filter.key).chain(&self.sort) {
                if keys.get(key).is_none() {
                    let known: Vec<&str> =
                        keys.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
                    return Err(
                        format!("the rows have no key {key:?}; their keys are {}", known.join(", ")).into()
                    );
                }
            }
            if self.filters.iter().all(|filter| filter.passes(&keys[&filter.key])) {
                with_keys.push((keys, row));
            }
        }
        if let Some(key) = &self.sort {
            with_keys.sort_by(|(one, _), (other, _)| compare(&one[key], &other[key]));
        }
        Ok(with_keys.into_iter().map(|(_, row)| row).collect())
    }
}

impl Filter {
    fn passes(&self, value: &Value) -> bool {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        matches(&self.pattern, &text) == self.is_equal
    }
}

/// Numbers from the largest, then text from A, then nothing.
fn compare(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Greater,
        (_, Value::Null) => Ordering::Less,
        (Value::Number(one), Value::Number(other)) => {
            other.as_f64().unwrap_or(0.0).total_cmp(&one.as_f64().unwrap_or(0.0))
        }
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (one, other) => one.to_string().cmp(&other.to_string()),
    }
}

/// Whether a text matches a pattern, in which each `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    loop {
        if matches(rest, left) {
            return true;
        }
        let mut characters = left.chars();
        if characters.next().is_none() {
            return false;
        }
        left = characters.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in
            [("fit", "fit"), ("fit*", "fit"), ("*::fit", "Model::fit"), ("f*t*", "fast"), ("*", "")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("fit", "fits"), ("*fit", "fits"), ("", "x"), ("a*b*c", "acb")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_filter_compares_what_the_json_has() {
        let filter = |text: &str| text.parse::<Filter>().unwrap();
        assert!(filter("pid=7").passes(&json!(7)) && !filter("pid=7").passes(&json!(8)));
        assert!(filter("pid != 7").passes(&json!(8)) && filter("name=").passes(&Value::Null));
        assert!(filter("function=fit*").passes(&json!("fit_all")));
        assert!("pid".parse::<Filter>().is_err());
    }

    #[test]
    fn numbers_come_from_the_largest_and_text_from_a() {
        let mut values = vec![json!("b"), Value::Null, json!("a")];
        values.sort_by(compare);
        assert_eq!(values, [json!("a"), json!("b"), Value::Null]);
        let mut values = vec![json!(1), json!(2.5), Value::Null, json!(10)];
        values.sort_by(compare);
        assert_eq!(values, [json!(10), json!(2.5), json!(1), Value::Null]);
    }
}
