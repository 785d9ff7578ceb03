//! Carries rows out: has the contenders' sides, lets them work in turn, and collects their figures.
//!
//! A side is started when a row first needs it, and ended when no later row does. A side that is not at work sleeps.
//! Ray is stopped meanwhile, because its processes poll also when nothing is asked of them.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::measure::Spread;
use crate::peer::{Failure, Figure, error};
use crate::prime;
use crate::procfs;
use crate::rivals::{plasma, python};
use crate::rows::{Contender, Row, Task, Who};
use crate::scratch::{self, Scratch};
use crate::side::Side;
use crate::texts;

/// The variable that says what a session records.
const EVENTS: &str = "MOBULA_EVENTS";

/// The outcome of one contender of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Measured(Spread),
    /// It cannot be had, or has failed, for this reason.
    Skipped(String),
    /// Its result is not the expected one.
    Wrong(String),
}

impl Outcome {
    pub(crate) fn spread(&self) -> Option<Spread> {
        match self {
            Self::Measured(spread) => Some(*spread),
            _ => None,
        }
    }
}

/// The outcome of a row: one for each contender, in their order.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) row: Row,
    pub(crate) outcomes: Vec<Outcome>,
    /// The day of the measurement, and the machine where it is not that of the page; [`crate::kept`] knows it.
    pub(crate) measured: String,
}

impl Measured {
    /// Mobula's median, or that of its Python package.
    pub(crate) fn ours(&self) -> Option<f64> {
        self.median(Who::Mobula).or_else(|| self.median(Who::Python))
    }

    /// The median of the first contender under this name.
    pub(crate) fn median(&self, who: Who) -> Option<f64> {
        let contenders = self.row.contenders.iter().zip(&self.outcomes);
        let mut found = contenders.filter(|(contender, _)| contender.who == who);
        found.find_map(|(_, outcome)| outcome.spread()).map(|spread| spread.median)
    }
}

/// The lengths and repetitions of measurements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) rounds_max: usize,
    /// Parts of a row's budget, in per cent.
    pub(crate) budget_percent: u64,
    pub(crate) idle_before: Duration,
    pub(crate) idle: Duration,
    pub(crate) objects_max: u64,
    /// Parts of a job’s size, in per cent.
    pub(crate) job_percent: u64,
}

impl Pace {
    pub(crate) const FULL: Self = Self {
        rounds_max: usize::MAX,
        budget_percent: 100,
        idle_before: Duration::from_secs(3),
        idle: Duration::from_secs(5),
        objects_max: u64::MAX,
        job_percent: 100,
    };
    pub(crate) const QUICK: Self = Self {
        rounds_max: 2,
        budget_percent: 25,
        idle_before: Duration::from_secs(1),
        idle: Duration::from_secs(2),
        objects_max: 100_000,
        job_percent: 1,
    };

    /// How often a row's contender has its turn.
    pub(crate) fn rounds(&self, row: &Row, contender: &Contender) -> usize {
        row.rounds.min(contender.rounds_max).min(self.rounds_max)
    }

    pub(crate) fn budget_ms(&self, row: &Row) -> u64 {
        row.budget_ms * self.budget_percent / 100
    }
}

/// The installations of the rivals that need one, or why there is none.
pub(crate) struct Installed {
    pub(crate) plasma: Result<plasma::Installed, String>,
    /// The environment of Pool and Dask.
    pub(crate) python: Result<python::Installed, String>,
    /// That of Mobula's Python package.
    pub(crate) package: Result<python::Installed, String>,
    pub(crate) ray: Result<python::Installed, String>,
}

/// The contenders.
pub(crate) struct Lab<'a> {
    scratch: &'a Scratch,
    installed: Installed,
    pace: Pace,
    sides: HashMap<Who, Result<Side, String>>,
    stopped: HashSet<Who>,
    idle: HashMap<Who, (f64, f64)>,
}

impl<'a> Lab<'a> {
    pub(crate) fn new(scratch: &'a Scratch, installed: Installed, pace: Pace) -> Self {
        let (sides, stopped, idle) = (HashMap::new(), HashSet::new(), HashMap::new());
        Self { scratch, installed, pace, sides, stopped, idle }
    }

    /// Measures rows in turn: every contender of every row once, then all of them again, until all have had their
    /// rounds.
    pub(crate) fn measure(&mut self, rows: &[&Row], mut tell: impl FnMut(&str, usize)) -> Vec<Measured> {
        let rounds = rows.iter().map(|row| row.rounds).max().unwrap_or(0);
        let mut figures: Vec<_> = rows.iter().map(|row| vec![Vec::new(); row.contenders.len()]).collect();
        let mut failures: Vec<_> = rows.iter().map(|row| vec![None; row.contenders.len()]).collect();
        for round in 0..rounds {
            for (number, row) in rows.iter().enumerate() {
                for (at, contender) in row.contenders.iter().enumerate() {
                    if round >= self.pace.rounds(row, contender) || failures[number][at].is_some() {
                        continue;
                    }
                    tell(&contender.label, round);
                    if row.primed {
                        prime::prime();
                    }
                    let figure = self.round(row, contender);
                    scratch::go_on();
                    match figure {
                        Ok(figure) => figures[number][at].push(figure),
                        Err(Failure::Wrong(text)) => failures[number][at] = Some(Outcome::Wrong(text)),
                        Err(Failure::Error(text)) => failures[number][at] = Some(Outcome::Skipped(text)),
                    }
                }
            }
        }
        let nothing = || Outcome::Skipped("it was not measured".to_owned());
        let outcome = |(figures, failure): (&Vec<f64>, Option<Outcome>)| {
            failure.or_else(|| Spread::of(figures).map(Outcome::Measured)).unwrap_or_else(nothing)
        };
        rows.iter()
            .zip(figures.iter().zip(failures))
            .map(|(row, (figures, failures))| Measured {
                row: (*row).clone(),
                outcomes: figures.iter().zip(failures).map(outcome).collect(),
                measured: String::new(),
            })
            .collect()
    }

    /// Lets the row's contenders drop everything that they keep for its rounds.
    pub(crate) fn rest(&mut self, row: &Row) {
        let whos: HashSet<Who> = row.contenders.iter().map(|contender| contender.who).collect();
        for who in whos {
            self.wake(who);
            if let Some(Ok(side)) = self.sides.get_mut(&who)
                && let Err(failure) = side.ask("rest")
            {
                // A rival that fails once is not waited for again. The others of its rows are measured all the same.
                self.sides.remove(&who);
                if !who.is_mobula() {
                    self.sides.insert(who, Err(failure.into_text()));
                }
            }
        }
    }

    /// Ends the sides that are not needed any more.
    pub(crate) fn end(&mut self, needed: &HashSet<Who>) {
        let over: Vec<Who> = self.sides.keys().copied().filter(|who| !needed.contains(who)).collect();
        for who in over {
            self.wake(who);
            self.sides.remove(&who);
        }
    }

    fn round(&mut self, row: &Row, contender: &Contender) -> Figure {
        match &contender.task {
            Task::Ask(words) => {
                let command = format!("{words} {}", self.pace.budget_ms(row));
                self.quiet(contender.who);
                self.side(contender.who)?.ask(&command)
            }
            Task::Job { words, size } => {
                let size = (size * self.pace.job_percent / 100).max(1);
                if words == "job-words" {
                    texts::make(self.scratch.directory(), size as usize)?;
                }
                let command = format!("{words} {size} {}", self.pace.budget_ms(row));
                self.quiet(contender.who);
                self.side(contender.who)?.ask(&command)
            }
            Task::IdleCpu => Ok(self.idle(contender.who)?.0),
            Task::IdleMemory => Ok(self.idle(contender.who)?.1),
            Task::ObjectMemory { objects, object_bytes } => {
                let objects = (*objects).min(self.pace.objects_max);
                self.quiet(contender.who);
                // One of its own, in which nothing else has been.
                let mut side = self.start(contender.who)?;
                side.ask(&format!("live-of {object_bytes} 0 0"))?;
                let before = procfs::memory_bytes(side.pid()) as f64;
                side.ask(&format!("live-of {object_bytes} {objects} 0"))?;
                let more = procfs::memory_bytes(side.pid()) as f64 - before;
                Ok(more / objects as f64 - *object_bytes as f64)
            }
        }
    }

    /// CPU time, in per cent of a core, and memory of a contender that has nothing to do.
    fn idle(&mut self, who: Who) -> Result<(f64, f64), Failure> {
        if let Some(idle) = self.idle.get(&who) {
            return Ok(*idle);
        }
        self.quiet(who);
        let (before, time) = (self.pace.idle_before, self.pace.idle);
        let measure = |side: &mut Side| -> Result<(f64, f64), Failure> {
            side.ask("warm 0")?;
            // The guard of a rival is not a part of it.
            let root = if who == Who::Ray { procfs::first_child(side.pid()) } else { Some(side.pid()) };
            let Some(root) = root else { return error("there is no such process") };
            std::thread::sleep(before);
            let memory = procfs::memory_bytes(root) as f64;
            let used = procfs::cpu_time(root);
            std::thread::sleep(time);
            let used = procfs::cpu_time(root).saturating_sub(used);
            Ok((100.0 * used.as_secs_f64() / time.as_secs_f64(), memory))
        };
        // One of Mobula's own, in which no row has left its arrays; another Ray would take long.
        let idle = if who.is_mobula() { measure(&mut self.start(who)?)? } else { measure(self.side(who)?)? };
        self.idle.insert(who, idle);
        Ok(idle)
    }

    /// Stops contenders that disturb others, unless it is their turn.
    fn quiet(&mut self, turn: Who) {
        self.wake(turn);
        for (who, side) in &self.sides {
            if let Ok(side) = side
                && who.polls()
                && *who != turn
                && self.stopped.insert(*who)
            {
                side.stop(true);
            }
        }
    }

    fn wake(&mut self, who: Who) {
        if self.stopped.remove(&who)
            && let Some(Ok(side)) = self.sides.get(&who)
        {
            side.stop(false);
        }
    }

    fn side(&mut self, who: Who) -> Result<&mut Side, Failure> {
        if !self.sides.contains_key(&who) {
            let started = self.start(who).map_err(Failure::into_text);
            self.sides.insert(who, started);
        }
        match self.sides.get_mut(&who) {
            Some(Ok(side)) => Ok(side),
            Some(Err(text)) => error(text.clone()),
            None => error("it was not started"),
        }
    }

    fn start(&self, who: Who) -> Result<Side, Failure> {
        let scratch = self.scratch.directory();
        let peer = |name: &str, words: &[&Path]| {
            let mut command = Command::new("/proc/self/exe");
            match who {
                Who::MobulaSilent => command.env(EVENTS, "none"),
                Who::MobulaRecording => command.env(EVENTS, "all"),
                _ => command.env_remove(EVENTS),
            };
            command.arg("peer").args(words);
            Side::start(name, command, Some(scratch))
        };
        let word = Path::new;
        match who {
            Who::Mobula => peer("mobula", &[word("mobula"), scratch]),
            Who::MobulaSleeping | Who::MobulaSilent | Who::MobulaRecording => {
                peer(who.word(), &[word(who.word()), scratch])
            }
            Who::Limit => peer("limits", &[word("limits")]),
            Who::Thread => peer("thread", &[word("thread"), scratch]),
            Who::Rayon => peer("rayon", &[word("rayon"), scratch]),
            Who::Lmdb => peer("lmdb", &[word("lmdb"), self.scratch.memory()]),
            Who::Iceoryx => {
                peer("iceoryx2", &[word("iceoryx"), scratch, word(self.scratch.iceoryx_prefix())])
            }
            Who::IpcChannel => peer("ipc-channel", &[word("ipc")]),
            Who::Plasma => match &self.installed.plasma {
                Ok(installed) => plasma::start(installed, scratch),
                Err(text) => error(text.clone()),
            },
            Who::Pool | Who::Dask | Who::Ray | Who::Python => {
                let installed = match who {
                    Who::Ray => &self.installed.ray,
                    Who::Python => &self.installed.package,
                    _ => &self.installed.python,
                };
                match installed {
                    Ok(installed) => python::start(installed, who.word(), scratch),
                    Err(text) => error(text.clone()),
                }
            }
        }
    }
}
