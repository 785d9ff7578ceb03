//! The rows: the work that is measured, the contenders, and the goals. Data alone; `lab.rs` carries it out.
//!
//! A row belongs to a [`Series`] when it is one point of how a cost grows.

mod calls;
mod cores;
mod growth;
mod idle;
mod jobs;
mod large;
mod objects;
mod python;
mod session;

use crate::measure::{Times, Unit, digits};

/// The process that does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Who {
    Mobula,
    /// Mobula, told never to look for news before it sleeps.
    MobulaSleeping,
    /// Mobula, told to record nothing.
    MobulaSilent,
    /// Mobula, told to record each call.
    MobulaRecording,
    /// Mobula's Python package.
    Python,
    Limit,
    Plasma,
    Lmdb,
    Iceoryx,
    IpcChannel,
    /// One process of plain Rust, with one thread.
    Thread,
    /// The same with rayon’s threads.
    Rayon,
    /// Python’s `multiprocessing.Pool`.
    Pool,
    Dask,
    Ray,
}

impl Who {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mobula => "Mobula",
            Self::MobulaSleeping => "Mobula, sleeping alone",
            Self::MobulaSilent => "nothing recorded",
            Self::MobulaRecording => "each call recorded",
            Self::Python => "Mobula, Python",
            Self::Limit => "the machine",
            Self::Plasma => "Plasma",
            Self::Lmdb => "LMDB",
            Self::Iceoryx => "iceoryx2",
            Self::IpcChannel => "ipc-channel",
            Self::Thread => "one thread",
            Self::Rayon => "rayon",
            Self::Pool => "Pool",
            Self::Dask => "Dask",
            Self::Ray => "Ray",
        }
    }

    /// As `--without` has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Mobula => "mobula",
            Self::MobulaSleeping => "mobula-sleeping",
            Self::MobulaSilent => "mobula-silent",
            Self::MobulaRecording => "mobula-recording",
            Self::Python => "python",
            Self::Limit => "limits",
            Self::Plasma => "plasma",
            Self::Lmdb => "lmdb",
            Self::Iceoryx => "iceoryx2",
            Self::IpcChannel => "ipc-channel",
            Self::Thread => "thread",
            Self::Rayon => "rayon",
            Self::Pool => "pool",
            Self::Dask => "dask",
            Self::Ray => "ray",
        }
    }

    /// Those that can be left out.
    pub(crate) const OPTIONAL: [Self; 10] = [
        Self::Python,
        Self::Plasma,
        Self::Lmdb,
        Self::Iceoryx,
        Self::IpcChannel,
        Self::Thread,
        Self::Rayon,
        Self::Pool,
        Self::Dask,
        Self::Ray,
    ];

    /// Whether it is no crate, so that it is installed before it is measured.
    pub(crate) fn is_installed(self) -> bool {
        matches!(self, Self::Python | Self::Plasma | Self::Pool | Self::Dask | Self::Ray)
    }

    /// Whether its processes poll also when nothing is asked of them.
    pub(crate) fn polls(self) -> bool {
        matches!(self, Self::Ray | Self::Dask)
    }

    /// Whether its figures stand in the page's column of Mobula.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Mobula | Self::Python)
    }

    pub(crate) fn is_mobula(self) -> bool {
        self.is_ours() || self == Self::MobulaSleeping
    }
}

/// The measurement of one round of a contender.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Task {
    /// Its side is given these words, and the budget behind them.
    Ask(String),
    /// The same for a job, whose size comes before the budget; a quick run has a smaller one.
    Job { words: String, size: u64 },
    /// CPU time of its processes while nothing is asked of them, of one core's, in per cent.
    IdleCpu,
    /// Memory of its processes at that time.
    IdleMemory,
    /// Memory that each of so many objects takes beside its bytes.
    ObjectMemory { objects: u64, object_bytes: u64 },
}

/// A process that does a row's work.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    pub(crate) who: Who,
    /// Its name in this row.
    pub(crate) label: String,
    pub(crate) task: Task,
    /// At most so many rounds, where each takes seconds.
    pub(crate) rounds_max: usize,
}

/// A goal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Goal {
    /// So many times as good as another.
    Times(Who, f64),
    /// At most so many times as long as another.
    Within(Who, f64),
    AtMost(f64),
    AtLeast(f64),
}

/// One kind of work.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) work: String,
    pub(crate) unit: Unit,
    /// The exact definition of the measurement, for the page. Empty where another row has it.
    pub(crate) method: &'static str,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) goals: Vec<Goal>,
    pub(crate) rounds: usize,
    pub(crate) budget_ms: u64,
    /// Bytes that each goes through, where the rate of that is of interest.
    pub(crate) bytes: Option<u64>,
    /// The series, and the place in it.
    pub(crate) point: Option<(&'static str, f64)>,
    /// Whether it is a whole job, which stands in the page’s first table too.
    pub(crate) job: bool,
    /// Whether the headline chart has it.
    pub(crate) headline: bool,
    /// Too slow for a quick run.
    pub(crate) slow: bool,
    /// Uses so much memory for the first time that the machine has to have it ready.
    pub(crate) primed: bool,
    /// Its rounds take turns with those of the other points of its series. So a disturbance of the machine does not
    /// look like growth.
    pub(crate) in_turn: bool,
}

/// The growth of a cost.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) key: &'static str,
    pub(crate) work: &'static str,
    /// The quantity that grows.
    pub(crate) axis: &'static str,
    /// How `axis` counts.
    pub(crate) axis_unit: AxisUnit,
    pub(crate) unit: Unit,
    pub(crate) method: &'static str,
    pub(crate) goals: Vec<SeriesGoal>,
    /// Whether the figures are too far apart for an even scale.
    pub(crate) log: bool,
}

/// How the numbers on a chart's lower axis are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AxisUnit {
    Count,
    Bytes,
}

/// The goal for all of Mobula's lines in a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum SeriesGoal {
    /// No point differs from the first by more than this part of it, to the worse.
    Flat(f64),
    /// No point is worse than the one at a place, but for this part of it.
    NoWorseThanAt(f64, f64),
    AtMost(f64),
    /// The point at a place is so many times as good as the first.
    TimesFirst(f64, f64),
    /// Each point is at most so many times as long as that of another.
    Within(Who, f64),
}

/// All rows, those of one series one after the other.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = jobs::rows();
    rows.extend(cores::rows());
    rows.extend(objects::rows());
    rows.extend(large::rows());
    rows.extend(calls::rows());
    rows.extend(session::rows());
    rows.extend(idle::rows());
    rows.extend(growth::rows());
    rows.extend(python::rows());
    rows
}

/// All series.
pub(crate) fn series() -> Vec<Series> {
    let mut series = large::series();
    series.extend(calls::series());
    series.extend(growth::series());
    series
}

impl Row {
    /// A row of five rounds of a fifth of a second for each contender.
    pub(crate) fn new(key: impl Into<String>, work: impl Into<String>, unit: Unit) -> Self {
        Self {
            key: key.into(),
            work: work.into(),
            unit,
            method: "",
            contenders: Vec::new(),
            goals: Vec::new(),
            rounds: 5,
            budget_ms: 200,
            bytes: None,
            point: None,
            job: false,
            headline: false,
            slow: false,
            primed: false,
            in_turn: false,
        }
    }

    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Adds a contender who is given these words.
    pub(crate) fn ask(self, who: Who, words: impl Into<String>) -> Self {
        self.ask_as(who.name(), who, words)
    }

    /// The same, under another name.
    pub(crate) fn ask_as(self, label: &str, who: Who, words: impl Into<String>) -> Self {
        self.contender(label, who, Task::Ask(words.into()), usize::MAX)
    }

    /// The same, for work that takes seconds.
    pub(crate) fn ask_rarely(self, who: Who, words: impl Into<String>, rounds_max: usize) -> Self {
        self.contender(who.name(), who, Task::Ask(words.into()), rounds_max)
    }

    pub(crate) fn contender(mut self, label: &str, who: Who, task: Task, rounds_max: usize) -> Self {
        self.contenders.push(Contender { who, label: label.to_owned(), task, rounds_max });
        self
    }

    pub(crate) fn times(mut self, who: Who, times: f64) -> Self {
        self.goals.push(Goal::Times(who, times));
        self
    }

    pub(crate) fn within(mut self, who: Who, times: f64) -> Self {
        self.goals.push(Goal::Within(who, times));
        self
    }

    pub(crate) fn at_most(mut self, figure: f64) -> Self {
        self.goals.push(Goal::AtMost(figure));
        self
    }

    pub(crate) fn at_least(mut self, figure: f64) -> Self {
        self.goals.push(Goal::AtLeast(figure));
        self
    }

    pub(crate) fn rounds(mut self, rounds: usize, budget_ms: u64) -> Self {
        (self.rounds, self.budget_ms) = (rounds, budget_ms);
        self
    }

    pub(crate) fn budget_ms(mut self, budget_ms: u64) -> Self {
        self.budget_ms = budget_ms;
        self
    }

    /// Takes a contender out.
    pub(crate) fn without(mut self, who: Who) -> Self {
        self.contenders.retain(|contender| contender.who != who);
        self
    }

    pub(crate) fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    pub(crate) fn point(mut self, series: &'static str, at: f64) -> Self {
        self.point = Some((series, at));
        self
    }

    pub(crate) fn primed(mut self) -> Self {
        self.primed = true;
        self
    }

    pub(crate) fn in_turn(mut self) -> Self {
        self.in_turn = true;
        self
    }

    pub(crate) fn headline(mut self) -> Self {
        self.headline = true;
        self
    }

    pub(crate) fn slow(mut self) -> Self {
        self.slow = true;
        self
    }

    /// The name of a contender here.
    pub(crate) fn label_of(&self, who: Who) -> &str {
        let contender = self.contenders.iter().find(|contender| contender.who == who);
        contender.map_or(who.name(), |contender| &contender.label)
    }

    /// A goal of this row's, in words.
    pub(crate) fn goal_text(&self, goal: &Goal) -> String {
        match goal {
            Goal::Times(who, 1.0) => format!("faster than {}", self.label_of(*who)),
            Goal::Times(who, times) if *times < 1.0 => {
                format!("{} of {}", plain(*times), self.label_of(*who))
            }
            Goal::Times(who, times) => {
                let times = if *times >= 100.0 { digits(*times) } else { plain(*times) };
                format!("{times} × {}", self.label_of(*who))
            }
            Goal::Within(who, times) => format!("within {} × {}", plain(*times), self.label_of(*who)),
            Goal::AtMost(figure) => format!("at most {}", self.unit.format(*figure)),
            Goal::AtLeast(figure) => format!("at least {}", self.unit.format(*figure)),
        }
    }
}

impl SeriesGoal {
    pub(crate) fn text(self, unit: Unit) -> String {
        match self {
            Self::Flat(part) => format!("flat (within {} %)", plain(part * 100.0)),
            Self::NoWorseThanAt(place, part) => {
                format!("nowhere worse than at {place} (within {} %)", plain(part * 100.0))
            }
            Self::AtMost(figure) => format!("at most {}", unit.format(figure)),
            Self::TimesFirst(place, times) => format!("{} × the first at {place}", plain(times)),
            Self::Within(who, times) => format!("within {} × {}", plain(times), who.name()),
        }
    }
}

/// A number without zeros behind the point.
fn plain(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A ratio against a contender, in words.
pub(crate) fn ratio_text(ratio: f64, label: &str) -> String {
    format!("{} {label}", Times(ratio))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_are_unique_and_every_series_has_its_rows_together() {
        let (rows, mut keys, mut over) = (rows(), HashSet::new(), HashSet::new());
        let mut last = None;
        for row in &rows {
            assert!(keys.insert(row.key.clone()), "two rows are called {}", row.key);
            let series = row.point.map(|(series, _)| series);
            if series != last {
                if let Some(last) = last {
                    over.insert(last);
                }
                if let Some(series) = series {
                    assert!(!over.contains(series), "{series} is in two places");
                }
            }
            last = series;
        }
        for series in series() {
            assert!(
                rows.iter().any(|row| row.point.is_some_and(|(of, _)| of == series.key)),
                "{}",
                series.key
            );
            assert!(keys.insert(series.key.to_owned()), "a row is called as the series {}", series.key);
        }
    }

    #[test]
    fn whoever_a_goal_names_takes_part() {
        for row in rows() {
            for goal in &row.goals {
                if let Goal::Times(who, _) | Goal::Within(who, _) = goal {
                    assert!(row.contenders.iter().any(|contender| contender.who == *who), "{}", row.key);
                }
            }
        }
    }
}
