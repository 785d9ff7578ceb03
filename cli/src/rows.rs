//! The options that every list has: to select, sort and limit rows.

use std::cmp::Ordering;
use std::error::Error;
use std::str::FromStr;

use mobula_runtime::words::count;
use serde::Serialize;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::list::Row;
use crate::session::Look;

/// Characters of a line of help.
const HELP_WIDTH: usize = 100;

/// The rows of a list, and the number of overwritten events: because of them, rows may be missing.
pub(crate) type Found<T> = Result<(Vec<T>, u64), Box<dyn Error>>;

/// The options of a list.
#[derive(Debug, clap::Args)]
pub(crate) struct Rows {
    #[command(flatten)]
    pub(crate) look: Look,
    /// Show only rows of functions, or classes, with this name; a `*` stands for any text.
    #[arg(long, value_name = "PATTERN")]
    function: Option<String>,
    /// Show only rows in which a key of the JSON has this value, or does not have it (`KEY!=VALUE`); a `*` stands for
    /// any text. May be given several times.
    #[arg(long = "where", value_name = "KEY=VALUE")]
    filters: Vec<Filter>,
    /// Sort the rows by this key of the JSON, or by the column with this head: numbers from the largest, text from A.
    /// Without it, each list has its own order.
    #[arg(long, value_name = "KEY")]
    sort: Option<String>,
    /// Reverse the order.
    #[arg(long)]
    reverse: bool,
    /// Show at most this number of rows. Default: 100; of a summary: all.
    #[arg(long, value_name = "ROWS", allow_hyphen_values = true, value_parser = limit)]
    limit: Option<usize>,
}

/// The options of a list whose rows have states.
#[derive(Debug, clap::Args)]
pub(crate) struct StateRows {
    /// Show only rows in this state; see below.
    #[arg(long)]
    state: Option<String>,
    #[command(flatten)]
    rows: Rows,
}

/// A number of rows, for `--limit`.
pub(crate) fn limit(text: &str) -> Result<usize, String> {
    let rows = text.parse().ok().filter(|rows| *rows > 0);
    rows.ok_or_else(|| "expected a number of rows, at least 1".to_owned())
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

impl StateRows {
    /// Prints the selected rows, as JSON or as text.
    pub(crate) fn show<T: Row>(&self, find: impl FnOnce(&Look) -> Found<T>) -> Result<(), Box<dyn Error>> {
        if let Some(state) = &self.state
            && !T::STATES.iter().any(|known| known.eq_ignore_ascii_case(state))
        {
            let (name, states) = (T::NAME, T::STATES.join(", "));
            return Err(Exit::usage(format!("no state of {name} is {state:?}; they are {states}")).into());
        }
        self.rows.show_those(find, |row: &T| {
            self.state.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&row.state()))
        })
    }
}

impl Rows {
    /// Prints the selected rows, as JSON or as text.
    pub(crate) fn show<T: Row>(&self, find: impl FnOnce(&Look) -> Found<T>) -> Result<(), Box<dyn Error>> {
        self.show_those(find, |_| true)
    }

    fn show_those<T: Row>(
        &self,
        find: impl FnOnce(&Look) -> Found<T>,
        is_chosen: impl Fn(&T) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        // A wrong word is an error also where there are no rows.
        let sort = self.sort.as_deref().map(key::<T>).transpose()?;
        let keys = self.filters.iter().map(|filter| key::<T>(&filter.key));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let (mut rows, lost) = find(&self.look)?;
        let is_of = |pattern: &String, row: &T| row.function().is_some_and(|it| matches(pattern, it));
        rows.retain(|row| is_chosen(row) && self.function.as_ref().is_none_or(|pattern| is_of(pattern, row)));
        let filters: Vec<_> = keys.into_iter().zip(&self.filters).collect();
        let mut rows = chosen(rows, &filters, sort)?;
        if self.reverse {
            rows.reverse();
        }
        let total = rows.len();
        rows.truncate(self.limit.unwrap_or(T::LIMIT));
        let found = json!({ T::NAME: rows, "total": total, "overwritten_events": lost });
        self.look.show(&found, || {
            let mut shown = T::table(&rows);
            if total > rows.len() {
                shown += &format!("  {} of {total}: --limit shows more\n", rows.len());
            }
            if lost > 0 {
                shown += &format!("  {}\n", forgotten(lost));
            }
            shown
        })
    }
}

/// The note that calls are missing because older events were overwritten.
fn forgotten(lost: u64) -> String {
    let verb = if lost == 1 { "was" } else { "were" };
    format!(
        "{} {verb} overwritten, and the calls in them are not listed: `mobula summary tasks` counts all calls",
        count(lost, "older event")
    )
}

/// The key of the JSON that a word on the command line means: itself, or that of the column with this head.
fn key<T: Row>(word: &str) -> Result<&'static str, Exit> {
    let is_same = |known: &&'static str| known.eq_ignore_ascii_case(word);
    let of_head = || T::HEADS.iter().find(|(head, _)| head.eq_ignore_ascii_case(word)).map(|(_, key)| *key);
    T::KEYS.iter().copied().find(is_same).or_else(of_head).ok_or_else(|| {
        Exit::usage(format!("{} have no key {word:?}; their keys are {}", T::NAME, T::KEYS.join(", ")))
    })
}

/// The words for the help of a list: its states and its keys.
pub(crate) fn words<T: Row>() -> String {
    let mut text = String::new();
    let states = ("States", T::STATES.to_vec());
    let keys = ("Keys", T::KEYS.to_vec());
    for (title, words) in [states, keys].into_iter().filter(|(_, words)| !words.is_empty()) {
        let mut line = format!("{title}:");
        for (at, word) in words.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if line.len() + word.len() + ", ,".len() > HELP_WIDTH {
                text += &format!("{line}{comma}\n");
                line = format!("  {word}");
            } else {
                line += &format!("{comma} {word}");
            }
        }
        text += &format!("{line}\n");
    }
    text.trim_end().to_owned()
}

/// The rows that pass all filters, sorted.
fn chosen<T: Serialize>(
    rows: Vec<T>,
    filters: &[(&str, &Filter)],
    sort: Option<&str>,
) -> Result<Vec<T>, Box<dyn Error>> {
    if filters.is_empty() && sort.is_none() {
        return Ok(rows);
    }
    let mut with_keys = Vec::with_capacity(rows.len());
    for row in rows {
        let keys = serde_json::to_value(&row)?;
        if filters.iter().all(|(key, filter)| filter.passes(&keys[key])) {
            with_keys.push((keys, row));
        }
    }
    if let Some(key) = sort {
        with_keys.sort_by(|(one, _), (other, _)| compare(&one[key], &other[key]));
    }
    Ok(with_keys.into_iter().map(|(_, row)| row).collect())
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
    use mobula_runtime::state::TaskState;

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
    fn a_limit_is_a_number_of_rows() {
        assert_eq!(limit("1"), Ok(1));
        for text in ["0", "-1", "all", "1.5", ""] {
            assert!(limit(text).unwrap_err().contains("at least 1"), "{text}");
        }
    }

    #[test]
    fn a_column_is_named_by_its_head_or_its_key() {
        for (word, expected) in [("ran_s", "ran_s"), ("ran", "ran_s"), ("RAN", "ran_s"), ("task", "task")] {
            assert_eq!(key::<TaskState>(word).unwrap(), expected);
        }
        let error = key::<TaskState>("colour").unwrap_err().to_string();
        assert!(error.contains("colour") && error.contains("worker_pid"), "{error}");
        let help = words::<TaskState>();
        assert!(help.contains("States: pending_arguments, pending") && help.contains("ran_s"), "{help}");
        assert!(help.lines().all(|line| line.len() <= HELP_WIDTH), "{help}");
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
