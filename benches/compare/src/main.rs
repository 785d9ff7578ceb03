//! Mobula beside its rivals and beside the limits of the machine, in one command:
//!
//! ```console
//! $ cargo run --release -p mobula-compare
//! ```
//!
//! It installs the rivals that are not crates, lets all contenders do each row's work in turn, checks every result
//! while measuring, and writes `docs/performance.md` and the charts beside it.
//!
//! * [`rows`] has the work, the contenders and the goals; [`notes`] says what bounds the rows that miss theirs;
//! * [`jobs`] and [`texts`] have the parts of whole jobs that all contenders share, and [`programs`] the examples that
//!   do them;
//! * [`lab`] carries rows out, with a [`side`] (a process) for each contender;
//! * [`peer`] is this program as such a process: [`mobula`], [`rivals`], and the machine's own [`limits`];
//! * [`measure`] has the statistics, [`verdict`] says which goals are reached, [`page`] and [`chart`] have the output,
//!   and [`kept`] the figures of rows that are not measured again;
//! * [`scratch`] sees to it that nothing is left behind.

mod chart;
mod guard;
mod jobs;
mod kept;
mod lab;
mod limits;
mod machine;
mod measure;
mod mobula;
mod notes;
mod page;
mod peer;
mod prime;
mod procfs;
mod programs;
mod rivals;
mod rows;
mod scratch;
mod side;
mod sides;
mod texts;
mod verdict;

use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use crate::kept::Kept;
use crate::lab::{Installed, Lab, Measured, Outcome, Pace};
use crate::peer::Failure;
use crate::rivals::{plasma, python};
use crate::rows::{Row, Who};
use crate::scratch::Scratch;

/// Measures Mobula beside its rivals and the machine's limits, and writes docs/performance.md.
#[derive(Debug, Parser)]
#[command(name = "mobula-compare", version)]
struct Options {
    /// Only rows whose key or work has one of these in it.
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    only: Vec<String>,
    /// Fewer and shorter rounds, without what takes long.
    #[arg(long)]
    quick: bool,
    /// Says which rows there are.
    #[arg(long)]
    list: bool,
    /// Leaves contenders out: python, plasma, lmdb, iceoryx2, ipc-channel, thread, rayon, pool, dask, ray.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    without: Vec<String>,
    /// Where the page and its charts go. Default: docs, if all rows are measured in full. Rows of a page that is there
    /// already, and that are not measured again, keep their figures, with date and machine.
    #[arg(long, value_name = "DIR", conflicts_with = "no_page")]
    out: Option<PathBuf>,
    /// Measures nothing, and writes the page again from the figures beside it: its notes may have changed.
    #[arg(long, conflicts_with_all = ["no_page", "only", "quick", "list", "without"])]
    page_only: bool,
    /// Writes nothing.
    #[arg(long)]
    no_page: bool,
    #[command(subcommand)]
    command: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// A contender's process; the harness starts it.
    #[command(hide = true)]
    Peer {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(Role::Peer { words }) = &options.command {
        return match sides::run(words) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("{failure}");
                ExitCode::FAILURE
            }
        };
    }
    match compare(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and says whether every result was right.
fn compare(options: &Options) -> Result<bool, Failure> {
    let start = Instant::now();
    if options.page_only {
        let out = options.out.clone().unwrap_or_else(|| PathBuf::from("docs"));
        println!("written: {}", write(&out, &Kept::open(&out)?)?.join(", "));
        return Ok(true);
    }
    let rows = selected(options)?;
    if options.list {
        for row in &rows {
            let goals: Vec<String> = row.goals.iter().map(|goal| row.goal_text(goal)).collect();
            println!("{:24} {} [{}]", row.key, row.work, goals.join(", "));
        }
        return Ok(true);
    }
    let machine = machine::describe();
    let scratch = Scratch::make()?;
    let installed = install(&rows)?;
    let measured = measure(&rows, &scratch, installed, options);
    let right = measured.iter().all(is_right);
    let complete = options.only.is_empty() && options.without.is_empty() && !options.quick;
    let out = match &options.out {
        _ if options.no_page => None,
        Some(out) => Some(out.clone()),
        None => complete.then(|| PathBuf::from("docs")),
    };
    println!("\n{}", page::table(&measured));
    if let Some(out) = out {
        let about = page::About {
            machine,
            versions: versions(),
            command: std::env::args().skip(1).collect(),
            quick: options.quick,
            taken: start.elapsed(),
        };
        let mut kept = Kept::open(&out)?;
        kept.replace(&measured, about);
        let file = kept.write(&out)?;
        let written = [vec![file], write(&out, &kept)?].concat();
        println!("{} s; written: {}", start.elapsed().as_secs(), written.join(", "));
    } else {
        println!("{} s; nothing is written, as not everything was measured", start.elapsed().as_secs());
    }
    Ok(right)
}

/// Writes the page and its charts, and the part of the README that has the headline rows if the page is the project's.
fn write(out: &Path, kept: &Kept) -> std::io::Result<Vec<String>> {
    let measured = kept.measured();
    let mut written = page::write(out, &measured, &kept.about)?;
    if out == Path::new("docs") {
        written.extend(page::write_headline("README.md".as_ref(), &measured)?);
    }
    Ok(written)
}

/// The rows that were asked for, without the rivals that were not wanted; those that need Ray come last, so that it
/// does not run beside the others.
fn selected(options: &Options) -> Result<Vec<Row>, Failure> {
    for word in &options.without {
        if !Who::OPTIONAL.iter().any(|who| who.word() == word) {
            let words: Vec<&str> = Who::OPTIONAL.iter().map(|who| who.word()).collect();
            return peer::error(format!("--without {word}: there are {}", words.join(", ")));
        }
    }
    let mut rows = rows::rows();
    rows.retain(|row| {
        let named =
            |pattern: &String| row.key.contains(pattern.as_str()) || row.work.contains(pattern.as_str());
        let wanted = options.only.is_empty() || options.only.iter().any(named);
        wanted && !(options.quick && row.slow)
    });
    for row in &mut rows {
        row.contenders.retain(|contender| !options.without.iter().any(|word| word == contender.who.word()));
    }
    if rows.is_empty() {
        return peer::error("no row is called like that; --list has all");
    }
    Ok(rows)
}

/// Installs everything that the rows' rivals need, before anything is measured.
fn install(rows: &[Row]) -> Result<Installed, Failure> {
    let needed: HashSet<Who> =
        rows.iter().flat_map(|row| &row.contenders).map(|contender| contender.who).collect();
    let base = target_directory().join("compare");
    std::fs::create_dir_all(&base)?;
    let installed: Vec<&str> = needed.iter().filter(|who| who.is_installed()).map(|who| who.name()).collect();
    if !installed.is_empty() {
        eprintln!("preparing {} in {}", installed.join(", "), base.display());
    }
    let not_needed = || "not needed".to_owned();
    let python = |whos: &[Who], environment| match whos.iter().any(|who| needed.contains(who)) {
        true => python::install(&base, environment).map_err(Failure::into_text),
        false => Err(not_needed()),
    };
    Ok(std::thread::scope(|scope| {
        let plasma = needed.contains(&Who::Plasma).then(|| scope.spawn(|| plasma::install(&base)));
        let ray = python(&[Who::Ray], &python::RAY);
        let package = python(&[Who::Python], &python::PACKAGE);
        let python = python(&[Who::Pool, Who::Dask], &python::PLAIN);
        let plasma = match plasma.map(std::thread::ScopedJoinHandle::join) {
            Some(Ok(installed)) => installed.map_err(Failure::into_text),
            Some(Err(_)) => Err("installing it has failed".to_owned()),
            None => Err(not_needed()),
        };
        Installed { plasma, python, package, ray }
    }))
}

/// The directory that this program was built in: the environments are kept beside cargo's output.
fn target_directory() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().and_then(Path::parent).map_or_else(|| PathBuf::from("target"), Path::to_owned)
}

fn measure(rows: &[Row], scratch: &Scratch, installed: Installed, options: &Options) -> Vec<Measured> {
    let pace = if options.quick { Pace::QUICK } else { Pace::FULL };
    let order = order(rows);
    let mut lab = Lab::new(scratch, installed, pace);
    let mut measured: Vec<Option<Measured>> = vec![None; rows.len()];
    let (start, all) = (Instant::now(), order.iter().map(|&at| weight(&rows[at], pace)).sum::<f64>());
    let mut done = 0.0;
    let mut position = 0;
    while let Some(&first) = order.get(position) {
        let group: Vec<usize> = order[position..]
            .iter()
            .copied()
            .take_while(|&at| at == first || rows[first].in_turn && is_of_series(&rows[at], &rows[first]))
            .collect();
        let left = left(start.elapsed(), done, all);
        let works: Vec<&str> = group.iter().map(|&at| rows[at].work.as_str()).collect();
        eprintln!("[{}/{}, {left}] {}", position + 1, order.len(), works.join("; "));
        let in_turn: Vec<&Row> = group.iter().map(|&at| &rows[at]).collect();
        let results = lab.measure(&in_turn, |label, round| {
            if std::io::stderr().is_terminal() {
                eprint!("\r\x1b[K    round {}: {label}", round + 1);
                let _ = std::io::stderr().flush();
            }
        });
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        position += group.len();
        let row = &rows[first];
        if !order.get(position).is_some_and(|&next| is_of_series(&rows[next], row)) {
            lab.rest(row);
        }
        let later = order[position..].iter().flat_map(|&at| &rows[at].contenders);
        lab.end(&later.map(|contender| contender.who).collect());
        for (at, result) in group.into_iter().zip(results) {
            for (contender, outcome) in rows[at].contenders.iter().zip(&result.outcomes) {
                eprintln!("    {:32} {}", contender.label, page::outcome_text(&rows[at], outcome));
            }
            measured[at] = Some(result);
            done += weight(&rows[at], pace);
        }
    }
    measured.into_iter().flatten().collect()
}

/// Whether two rows are points of one series.
fn is_of_series(row: &Row, other: &Row) -> bool {
    let series = |row: &Row| row.point.map(|(series, _)| series);
    series(row).is_some() && series(row) == series(other)
}

/// Rows without Ray first; a series stays together.
fn order(rows: &[Row]) -> Vec<usize> {
    let with_ray = |row: &Row| row.contenders.iter().any(|contender| contender.who == Who::Ray);
    let late = |row: &Row| match row.point {
        None => with_ray(row),
        Some((series, _)) => {
            rows.iter().any(|other| other.point.is_some_and(|(of, _)| of == series) && with_ray(other))
        }
    };
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&at| late(&rows[at]));
    order
}

/// About how many seconds a row takes.
fn weight(row: &Row, pace: Pace) -> f64 {
    let rounds: usize = row.contenders.iter().map(|contender| pace.rounds(row, contender)).sum();
    0.2 + rounds as f64 * (pace.budget_ms(row) as f64 / 1000.0 + 0.1)
}

fn left(elapsed: Duration, done: f64, all: f64) -> String {
    if done == 0.0 {
        return format!("about {all:.0} s");
    }
    let left = elapsed.as_secs_f64() / done * (all - done);
    format!("{} s, about {left:.0} s left", elapsed.as_secs())
}

/// Whether nothing about a row is wrong: rivals may be missing, Mobula and the machine may not.
fn is_right(measured: &Measured) -> bool {
    let contenders = measured.row.contenders.iter().zip(&measured.outcomes);
    contenders.into_iter().all(|(contender, outcome)| match outcome {
        Outcome::Measured(_) => true,
        Outcome::Wrong(_) => false,
        Outcome::Skipped(_) => !contender.who.is_mobula() && contender.who != Who::Limit,
    })
}

fn versions() -> Vec<String> {
    vec![
        format!("Mobula {}", env!("CARGO_PKG_VERSION")),
        plasma::VERSION.to_owned(),
        python::VERSIONS.to_owned(),
        format!("LMDB by heed {}", machine::version_of("heed")),
        format!("iceoryx2 {}", machine::version_of("iceoryx2")),
        format!("ipc-channel {}", machine::version_of("ipc-channel")),
        format!("crossbeam {}", machine::version_of("crossbeam")),
    ]
}
