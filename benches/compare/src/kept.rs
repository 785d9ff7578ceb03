//! The measurements that the page consists of, in a file beside it.
//!
//! A run that measures only some rows replaces these. The others keep their figures, and the page says on which day
//! each row was measured, and on which machine if that was another one. A row is replaced as a whole, so that ratios
//! are of figures of one run.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::lab::{Measured, Outcome};
use crate::page::About;
use crate::rows;

const FILE: &str = "performance.json";

/// The parts of the page.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The last run.
    pub(crate) about: About,
    /// The rows that have been measured, by their keys.
    rows: BTreeMap<String, KeptRow>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct KeptRow {
    date: String,
    machine: String,
    /// By the contenders' names.
    outcomes: BTreeMap<String, Outcome>,
}

impl Kept {
    /// The rows of a directory's page: none, if it has no page.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        match std::fs::read(directory.join(FILE)) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes them beside the page, and returns the file.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<String> {
        let path = directory.join(FILE);
        std::fs::create_dir_all(directory)?;
        std::fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(path.display().to_string())
    }

    /// Puts the rows of a run in the place of those that were kept.
    pub(crate) fn replace(&mut self, measured: &[Measured], about: About) {
        self.about = about;
        for of in measured {
            let contenders = of.row.contenders.iter().map(|contender| contender.label.clone());
            let outcomes = contenders.zip(of.outcomes.iter().cloned()).collect();
            let (date, machine) = (self.about.when(), self.about.processor().to_owned());
            self.rows.insert(of.row.key.clone(), KeptRow { date, machine, outcomes });
        }
    }

    /// All rows, in the order of the page, with those contenders that were measured.
    pub(crate) fn measured(&self) -> Vec<Measured> {
        let rows = rows::rows().into_iter().filter_map(|mut row| {
            let kept = self.rows.get(&row.key)?;
            row.contenders.retain(|contender| kept.outcomes.contains_key(&contender.label));
            let outcomes =
                row.contenders.iter().filter_map(|contender| kept.outcomes.get(&contender.label).cloned());
            let outcomes = outcomes.collect();
            let measured = match kept.machine == self.about.processor() {
                true => kept.date.clone(),
                false => format!("{}, on {}", kept.date, kept.machine),
            };
            Some(Measured { row, outcomes, measured })
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Spread;
    use crate::rows::Who;

    fn measured(key: &str, median: f64) -> Measured {
        let mut row = rows::rows().into_iter().find(|row| row.key == key).unwrap();
        row.contenders.retain(|contender| contender.who == Who::Mobula);
        let outcome = Outcome::Measured(Spread { median, low: median, high: median });
        Measured { row, outcomes: vec![outcome], measured: String::new() }
    }

    fn about(processor: &str, date: &str, load: &str) -> About {
        let lines = [("processor", processor), ("date", date), ("load before", load)];
        let machine = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        About { machine, ..About::default() }
    }

    #[test]
    fn rows_that_are_not_measured_again_keep_their_figures_their_day_and_their_machine() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(directory.path()).unwrap();
        kept.replace(&[measured("init", 1.0), measured("shutdown", 2.0)], about("old", "monday", "1.20"));
        kept.write(directory.path()).unwrap();

        let mut kept = Kept::open(directory.path()).unwrap();
        kept.replace(&[measured("shutdown", 3.0)], about("new", "tuesday", "6.50"));
        let all = kept.measured();
        let found: Vec<_> =
            all.iter().map(|of| (&*of.row.key, &*of.measured, of.median(Who::Mobula).unwrap())).collect();
        assert_eq!(found, [("init", "monday, on old", 1.0), ("shutdown", "tuesday, busy (load 6.50)", 3.0)]);
        assert!(all.iter().all(|of| of.row.contenders.len() == of.outcomes.len()));
    }
}
