//! The page: the measurements as Markdown, and the names of its charts. Pure, but for [`write`].

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};

use crate::chart::{self, Axes, Bar};
use crate::jobs::WORKERS;
use crate::lab::{Measured, Outcome};
use crate::measure::{Spread, Times, times_as_good};
use crate::notes::note;
use crate::rows::{self, Contender, Goal, Row, Series, Who, ratio_text};
use crate::verdict::{self, Line, Verdict};

/// From this load on, figures need a warning: a run that has just ended can leave a little less.
const BUSY: f64 = 2.0;
const PAGE: &str = "performance.md";
const HEADLINE: &str = "performance-headline.svg";
/// Where the headline rows go in another file.
const HEADLINE_BEGIN: &str = "<!-- measured by mobula-compare -->";
const HEADLINE_END: &str = "<!-- end of what was measured -->";

/// The page's text beside the figures: the run that wrote it.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Names and values, as [`crate::machine`] describes it.
    pub(crate) machine: Vec<(String, String)>,
    pub(crate) versions: Vec<String>,
    /// The arguments of the command.
    pub(crate) command: Vec<String>,
    pub(crate) quick: bool,
    pub(crate) taken: Duration,
}

impl About {
    pub(crate) fn processor(&self) -> &str {
        self.line("processor")
    }

    /// The day of the run, and what makes its figures less good: a quick run, which has smaller jobs, or other work on
    /// the machine before it began.
    pub(crate) fn when(&self) -> String {
        let load = self.line("load before");
        let busy = load.parse::<f64>().is_ok_and(|load| load >= BUSY);
        let quick = if self.quick { ", quick" } else { "" };
        let busy = if busy { format!(", busy (load {load})") } else { String::new() };
        format!("{}{quick}{busy}", self.line("date"))
    }

    fn line(&self, name: &str) -> &str {
        self.machine.iter().find(|(of, _)| of == name).map_or("", |(_, value)| value)
    }
}

/// Writes the page and its charts into a directory, and returns the files that it wrote.
pub(crate) fn write(out: &Path, measured: &[Measured], about: &About) -> std::io::Result<Vec<String>> {
    std::fs::create_dir_all(out)?;
    let mut written = Vec::new();
    let mut file = |name: &str, content: &str| {
        let path = out.join(name);
        std::fs::write(&path, content)?;
        written.push(path.display().to_string());
        Ok::<_, std::io::Error>(())
    };
    file(PAGE, &page(measured, about))?;
    let bars = headline(measured);
    if !bars.is_empty() {
        file(HEADLINE, &chart::bars("Mobula beside others, on one machine", &bars)?)?;
    }
    for series in rows::series() {
        let lines = verdict::lines(&series, measured);
        if !lines.is_empty() {
            file(&chart_name(&series), &series_chart(&series, &lines)?)?;
        }
    }
    Ok(written)
}

/// Puts the headline rows into a file that has a place for them, and says so.
pub(crate) fn write_headline(file: &Path, measured: &[Measured]) -> std::io::Result<Option<String>> {
    let text = std::fs::read_to_string(file)?;
    let Some(text) = with_headline(&text, measured) else { return Ok(None) };
    std::fs::write(file, text)?;
    Ok(Some(file.display().to_string()))
}

/// A text with the headline rows between its two marks; `None` when it has none.
fn with_headline(text: &str, measured: &[Measured]) -> Option<String> {
    let (before, rest) = text.split_once(HEADLINE_BEGIN)?;
    let (_, after) = rest.split_once(HEADLINE_END)?;
    let jobs = jobs(measured);
    let mut rows = format!("\n\n{jobs}| work | Mobula | |\n|---|---|---|\n");
    for of in measured.iter().filter(|of| of.row.headline) {
        let Some(ours) = of.ours() else { continue };
        let ratios: Vec<String> =
            ratios_of(of).into_iter().map(|bar| ratio_text(bar.times, &bar.who)).collect();
        let ours = format!("{}{}", of.row.unit.format(ours), throughput(&of.row, ours));
        let _ = writeln!(rows, "| {} | {ours} | {} |", of.row.work, ratios.join(" · "));
    }
    Some(format!("{before}{HEADLINE_BEGIN}{rows}\n{HEADLINE_END}{after}"))
}

/// An outcome in words, with its spread.
pub(crate) fn outcome_text(row: &Row, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Measured(spread) => {
            let range = range(row, spread).map(|range| format!("  ({range})")).unwrap_or_default();
            format!("{}{}{range}", row.unit.format(spread.median), throughput(row, spread.median))
        }
        Outcome::Skipped(text) => format!("SKIP {text}"),
        Outcome::Wrong(text) => format!("WRONG {text}"),
    }
}

/// The table for a terminal.
pub(crate) fn table(measured: &[Measured]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["work", "Mobula", "beside", "reach", ""]);
    for entry in entries(measured) {
        let (ours, ratios, goals) = (entry.ours.join(", "), entry.ratios.join(", "), entry.goals.join(", "));
        table.add_row([entry.work, without_tags(&ours), ratios, goals, mark(entry.verdict)]);
    }
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table.trim_fmt() + "\n"
}

/// A line of the table: a row, or a series.
struct Entry {
    key: String,
    work: String,
    ours: Vec<String>,
    /// The others' figures.
    others: Vec<String>,
    ratios: Vec<String>,
    goals: Vec<String>,
    /// `None` where nothing is to be reached.
    verdict: Option<Verdict>,
    /// The day of the measurement, and the machine where it is another one.
    measured: String,
}

fn entries(measured: &[Measured]) -> Vec<Entry> {
    let (series, mut seen) = (rows::series(), Vec::new());
    let mut entries = Vec::new();
    for of in measured {
        match of.row.point {
            None => entries.push(row_entry(of)),
            Some((key, _)) if !seen.contains(&key) => {
                seen.push(key);
                let found = series.iter().find(|series| series.key == key);
                entries.extend(found.map(|series| series_entry(series, measured)));
            }
            Some(_) => {}
        }
    }
    entries
}

fn row_entry(measured: &Measured) -> Entry {
    let row = &measured.row;
    let (mut ours, mut others, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let base = measured.ours();
    for (contender, outcome) in row.contenders.iter().zip(&measured.outcomes) {
        let text = match outcome {
            Outcome::Measured(spread) => {
                let range =
                    range(row, spread).map(|range| format!(" <sub>{range}</sub>")).unwrap_or_default();
                format!("{}{}{range}", row.unit.format(spread.median), throughput(row, spread.median))
            }
            other => outcome_text(row, other),
        };
        if contender.who.is_ours() {
            let named = contender.label == contender.who.name();
            ours.push(if named { text } else { format!("{}: {text}", contender.label) });
            continue;
        }
        others.push(format!("{}: {text}", contender.label));
        if let (Some(base), Some(spread)) = (base, outcome.spread())
            && spread.median > 0.0
            && base > 0.0
        {
            ratios.push(ratio_text(times_as_good(row.unit, base, spread.median), &contender.label));
        }
    }
    let goals = row.goals.iter().map(|goal| row.goal_text(goal)).collect();
    let verdicts = row.goals.iter().map(|goal| verdict::of_goal(measured, goal));
    let verdict = (!row.goals.is_empty()).then(|| Verdict::all(verdicts));
    let (key, work, measured) = (row.key.clone(), row.work.clone(), measured.measured.clone());
    Entry { key, work, ours, others, ratios, goals, verdict, measured }
}

fn series_entry(series: &Series, measured: &[Measured]) -> Entry {
    let lines = verdict::lines(series, measured);
    let span = |line: &Line| {
        let figures: Vec<f64> = line.points.iter().map(|(_, figure)| *figure).collect();
        let spread = Spread::of(&figures);
        spread.map_or_else(String::new, |spread| {
            format!("{} … {}", series.unit.format(spread.low), series.unit.format(spread.high))
        })
    };
    let ours: Vec<&Line> = lines.iter().filter(|line| line.who.is_ours()).collect();
    let named = |line: &&Line| {
        if ours.len() == 1 { span(line) } else { format!("{}: {}", line.label, span(line)) }
    };
    let verdicts = series.goals.iter().map(|goal| verdict::of_series(series, *goal, &lines));
    Entry {
        key: series.key.to_owned(),
        work: series.work.to_owned(),
        ours: ours.iter().map(named).collect(),
        others: lines
            .iter()
            .filter(|line| !line.who.is_ours())
            .map(|line| format!("{}: {}", line.label, span(line)))
            .collect(),
        ratios: Vec::new(),
        goals: series.goals.iter().map(|goal| goal.text(series.unit)).collect(),
        verdict: (!series.goals.is_empty()).then(|| Verdict::all(verdicts)),
        measured: dates(measured.iter().filter(|of| of.row.point.is_some_and(|(key, _)| key == series.key))),
    }
}

fn mark(verdict: Option<Verdict>) -> String {
    match verdict {
        None => "",
        Some(Verdict::Reached) => "✓",
        Some(Verdict::Missed) => "no",
        Some(Verdict::Unknown) => "?",
    }
    .to_owned()
}

/// From the least to the most of a few rounds; of one there is none.
fn range(row: &Row, spread: &Spread) -> Option<String> {
    (spread.low < spread.high)
        .then(|| format!("{}–{}", row.unit.format(spread.low), row.unit.format(spread.high)))
}

/// Bytes a second, where a row goes through many.
fn throughput(row: &Row, seconds: f64) -> String {
    row.bytes.map(|bytes| format!(", {:.1} GB/s", bytes as f64 / seconds / 1e9)).unwrap_or_default()
}

/// A cell as a terminal can show it.
fn without_tags(cell: &str) -> String {
    cell.replace("<sub>", "(").replace("</sub>", ")")
}

/// The bars of the headline chart: jobs first, beside those that use all processors.
fn headline(measured: &[Measured]) -> Vec<Bar> {
    let jobs = measured.iter().filter(|of| of.row.job).flat_map(|of| {
        let parallel = |ratio: &Ratio| [Who::Rayon.name(), Who::Ray.name()].contains(&ratio.who.as_str());
        ratios_of(of).into_iter().filter(parallel).map(move |ratio| (of, ratio))
    });
    let others = measured.iter().filter(|of| of.row.headline);
    let others = others.flat_map(|of| ratios_of(of).into_iter().map(move |ratio| (of, ratio)));
    let bars = jobs.chain(others).map(|(of, ratio)| {
        let label = format!("{} · {}", short(&of.row.work), short(&ratio.who));
        Bar { label, times: ratio.times, wanted: ratio.wanted }
    });
    bars.collect()
}

/// How many times as good a contender is as another, and how many are wanted.
struct Ratio {
    who: String,
    times: f64,
    wanted: Option<f64>,
}

/// A row against each rival, and against the machine where one of its limits is to be reached.
fn ratios_of(of: &Measured) -> Vec<Ratio> {
    let Some(ours) = of.ours().filter(|ours| *ours > 0.0) else { return Vec::new() };
    let mut ratios = Vec::new();
    for contender in of.row.contenders.iter().filter(|contender| !contender.who.is_mobula()) {
        let Some(theirs) = of.median(contender.who) else { continue };
        let wanted = of.row.goals.iter().find_map(|goal| match goal {
            Goal::Times(who, times) if *who == contender.who => Some(*times),
            Goal::Within(who, times) if *who == contender.who => Some(1.0 / times),
            Goal::AtMost(figure) if *figure > 0.0 => Some(times_as_good(of.row.unit, *figure, theirs)),
            _ => None,
        });
        if contender.who != Who::Limit || wanted.is_some() {
            let times = times_as_good(of.row.unit, ours, theirs);
            ratios.push(Ratio { who: contender.label.clone(), times, wanted });
        }
    }
    ratios
}

/// As much of a name as a chart has room for.
fn short(name: &str) -> String {
    let name = name.replace('`', "");
    match name.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}

fn chart_name(series: &Series) -> String {
    format!("performance-{}.svg", series.key)
}

fn series_chart(series: &Series, lines: &[Line]) -> std::io::Result<String> {
    let title = upper_first(series.work);
    let axes = Axes {
        title: &title,
        x: series.axis,
        x_unit: series.axis_unit,
        y_unit: series.unit,
        log: series.log,
    };
    chart::lines(axes, lines)
}

fn upper_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The table that a newcomer looks at first: each job beside each way to do it. Empty without jobs.
fn jobs(measured: &[Measured]) -> String {
    const WHOS: [Who; 5] = [Who::Mobula, Who::Thread, Who::Rayon, Who::Pool, Who::Ray];
    let jobs: Vec<&Measured> = measured.iter().filter(|of| of.row.job).collect();
    if jobs.is_empty() {
        return String::new();
    }
    let heads = WHOS.map(Who::name).join(" | ");
    let mut table = format!("| job | {heads} |\n|---|{}\n", "---|".repeat(WHOS.len()));
    for of in &jobs {
        let cells = WHOS.map(|who| {
            let contenders = of.row.contenders.iter().zip(&of.outcomes);
            let of_who = contenders.filter(|(contender, _)| contender.who == who);
            let cell =
                of_who.map(|(contender, outcome)| job_cell(of, contender, outcome)).collect::<Vec<_>>();
            if cell.is_empty() { "–".to_owned() } else { cell.join("<br>") }
        });
        let _ = writeln!(table, "| {} | {} |", of.row.work, cells.join(" | "));
    }
    format!(
        "{table}\nMeasured {}, with {WORKERS} workers, threads or processes each. In brackets: how many times as fast \
         Mobula is.\n\n",
        dates(jobs.iter().copied())
    )
}

/// The time of a contender for a job, and how many times as fast Mobula is.
fn job_cell(of: &Measured, contender: &Contender, outcome: &Outcome) -> String {
    let Some(spread) = outcome.spread() else { return outcome_text(&of.row, outcome) };
    let figure = of.row.unit.format(spread.median);
    let named = match contender.label == contender.who.name() {
        true => figure,
        false => format!("{}: {figure}", contender.label),
    };
    let times = of.ours().map(|ours| times_as_good(of.row.unit, ours, spread.median));
    match times {
        // A function call is no rival of a message: such a ratio says nothing.
        Some(times) if !contender.who.is_mobula() && times >= 0.01 => format!("{named} ({})", Times(times)),
        _ => named,
    }
}

/// The days on which rows were measured, and their machines where they are others.
fn dates<'a>(measured: impl Iterator<Item = &'a Measured>) -> String {
    let dates: BTreeSet<&str> = measured.map(|of| of.measured.as_str()).collect();
    dates.into_iter().collect::<Vec<_>>().join("; ")
}

/// All of it.
fn page(measured: &[Measured], about: &About) -> String {
    let entries = entries(measured);
    let mut page = String::from("# Performance\n\n");
    let quoted = |word: &String| if word.contains(' ') { format!(" '{word}'") } else { format!(" {word}") };
    let arguments: String = about.command.iter().map(quoted).collect();
    let _ = writeln!(
        page,
        "Written by `cargo run --release -p mobula-compare`, which measures everything below again; do not edit it. \
         The last run was `mobula-compare{arguments}` ({} s{}). Rows that a run leaves out keep their figures, and the \
         day (and the machine, if it is another one) of their measurement. What limits a row that misses its goal \
         stands in `benches/compare/src/notes.rs`.\n",
        about.taken.as_secs(),
        if about.quick { "; a quick run, with smaller jobs, so trust it less" } else { "" }
    );
    let jobs = jobs(measured);
    if !jobs.is_empty() {
        page.push_str(&jobs);
        page.push_str(
            "Spreads and goals stand under “Results”, the exact work under “What is measured”.\n\n",
        );
    }
    if !headline(measured).is_empty() {
        let _ = writeln!(page, "![How many times as fast Mobula is]({HEADLINE})\n");
    }
    page.push_str("## Method\n\n");
    page.push_str(METHOD);
    page.push_str("\n\n| machine | |\n|---|---|\n");
    for (name, value) in &about.machine {
        let _ = writeln!(page, "| {name} | {value} |");
    }
    let _ = writeln!(page, "| versions | {} |\n", about.versions.join(" · "));
    page.push_str(
        "## Results\n\nEach figure is the median of the rounds; the small figures are the lowest and the highest \
         round.\n\n",
    );
    page.push_str(
        "| work | Mobula | others | ratio | to reach | reached | measured |\n|---|---|---|---|---|---|---|\n",
    );
    for entry in &entries {
        let number = || missed(&entries).position(|missed| missed.key == entry.key).map_or(0, |at| at + 1);
        let mark = match entry.verdict {
            Some(Verdict::Missed) => format!("no, [note {0}](#note-{0})", number()),
            verdict => mark(verdict),
        };
        let cells = [
            entry.work.clone(),
            entry.ours.join("<br>"),
            entry.others.join("<br>"),
            entry.ratios.join("<br>"),
            entry.goals.join("<br>"),
            mark,
            entry.measured.clone(),
        ];
        let _ = writeln!(page, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    page.push('\n');
    limits(&mut page, measured);
    notes(&mut page, &entries);
    growth(&mut page, measured);
    definitions(&mut page, measured);
    page
}

const METHOD: &str = "\
In each row, all systems are measured in turn, A B A B …, usually in five rounds of 0.1 to 0.3 s each. A round \
gives a median (or a rate), and the table has the median of the rounds. Each system works in processes of its own, \
in its own language: Mobula and the Rust rivals in Rust, Plasma in C++, Ray, Dask and Python’s \
`multiprocessing.Pool` in Python, with numpy and pyarrow. The rows “Python: …” use Mobula’s Python package. A whole \
job is done once in a round, in two or three rounds; its data, and sessions, pools and clusters, are there before. \
Each result is checked while it is measured; a wrong one ends the run with an error. A system that is not measured \
sleeps. The processes of Ray and Dask poll also when they have nothing to do, so they are stopped (`SIGSTOP`) while \
others are measured, and rows without Ray \
come before it is started. Before each round of the rows of 256 MiB, a gigabyte is used and freed: the host of a \
virtual machine takes free memory away, and the cost of getting it back should be in no figure. A ratio says how \
many times as fast Mobula is, or how many times as little it takes: above 1 is better.";

fn missed(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    entries.iter().filter(|entry| entry.verdict == Some(Verdict::Missed))
}

/// The limits of the machine, gathered from the rows.
fn limits(page: &mut String, measured: &[Measured]) {
    let mut lines = Vec::new();
    for of in measured.iter().filter(|of| of.row.point.is_none()) {
        for (contender, outcome) in of.row.contenders.iter().zip(&of.outcomes) {
            if contender.who == Who::Limit {
                let work = upper_first(&contender.label);
                lines.push(format!("| {work} | {} |\n", outcome_text(&of.row, outcome)));
            }
        }
    }
    if !lines.is_empty() {
        page.push_str("## Limits of the machine\n\n| what | measured |\n|---|---|\n");
        page.extend(lines);
        page.push('\n');
    }
}

/// The bounds of the rows that are not reached.
fn notes(page: &mut String, entries: &[Entry]) {
    if missed(entries).next().is_none() {
        return;
    }
    page.push_str("## Goals that are missed, and why\n\n");
    for (number, entry) in missed(entries).enumerate() {
        let text = note(&entry.key).unwrap_or("Not explained yet.");
        let number = number + 1;
        let _ = writeln!(page, "<a id=\"note-{number}\"></a>{number}. **{}**: {text}\n", entry.work);
    }
}

/// A chart and a table for each series.
fn growth(page: &mut String, measured: &[Measured]) {
    let mut begun = false;
    for series in rows::series() {
        let lines = verdict::lines(&series, measured);
        if lines.is_empty() {
            continue;
        }
        if !begun {
            page.push_str("## How costs grow\n\n");
            begun = true;
        }
        let title = upper_first(series.work);
        let _ = writeln!(page, "### {title}\n\n{}\n\n![{title}]({})\n", series.method, chart_name(&series));
        let mut places: Vec<f64> = lines.iter().flat_map(|line| &line.points).map(|(at, _)| *at).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let heads: Vec<&str> = lines.iter().map(|line| line.label.as_str()).collect();
        let _ = writeln!(page, "| {} | {} |", series.axis, heads.join(" | "));
        let _ = writeln!(page, "|---|{}", "---|".repeat(lines.len()));
        for place in places {
            let cell = |line: &Line| {
                let found = line.points.iter().find(|(at, _)| *at == place);
                found.map_or("–".to_owned(), |(_, figure)| series.unit.format(*figure))
            };
            let cells: Vec<String> = lines.iter().map(cell).collect();
            let _ =
                writeln!(page, "| {} | {} |", chart::place_text(series.axis_unit, place), cells.join(" | "));
        }
        page.push('\n');
    }
}

/// The exact definition of each row.
fn definitions(page: &mut String, measured: &[Measured]) {
    page.push_str("## What is measured\n\n");
    for of in measured.iter().filter(|of| !of.row.method.is_empty()) {
        let _ = writeln!(page, "- **{}**: {}", upper_first(&of.row.work), of.row.method);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Unit;

    fn measured(goal: f64) -> Measured {
        let row = Row::new("put-8", "put 8 B", Unit::Seconds)
            .method("Put.")
            .ask(Who::Mobula, "put 8")
            .ask(Who::Plasma, "put 8")
            .ask(Who::Lmdb, "put 8")
            .times(Who::Plasma, goal)
            .headline();
        let spread = |median| Outcome::Measured(Spread { median, low: median / 2.0, high: median * 2.0 });
        let outcomes = vec![spread(1e-7), spread(5e-5), Outcome::Skipped("not there".into())];
        Measured { row, outcomes, measured: "2026-01-02".into() }
    }

    fn about() -> About {
        About {
            machine: vec![("processor".into(), "one".into())],
            versions: vec!["Mobula 0".into()],
            command: Vec::new(),
            quick: false,
            taken: Duration::from_secs(7),
        }
    }

    #[test]
    fn a_row_shows_figures_ratio_and_what_is_reached() {
        let page = page(&[measured(300.0)], &about());
        let line = page.lines().find(|line| line.starts_with("| put 8 B")).unwrap();
        assert!(line.contains("| 100 ns <sub>50.0 ns–200 ns</sub> |"), "{line}");
        assert!(line.contains("Plasma: 50.0 µs") && line.contains("LMDB: SKIP not there"), "{line}");
        assert!(
            line.contains("| 500 × Plasma |") && line.ends_with("| 300 × Plasma | ✓ | 2026-01-02 |"),
            "{line}"
        );
        assert!(!page.contains("that are missed, and why"));
        assert!(page.contains("- **Put 8 B**: Put."));
    }

    #[test]
    fn a_row_that_is_missed_has_a_note() {
        let page = page(&[measured(1000.0)], &about());
        assert!(page.contains("| no, [note 1](#note-1) | 2026-01-02 |"), "{page}");
        assert!(page.contains("<a id=\"note-1\"></a>1. **put 8 B**:"), "{page}");
    }

    #[test]
    fn jobs_stand_before_everything_else() {
        let contenders =
            [(Who::Mobula, Some(2.0)), (Who::Thread, Some(3.0)), (Who::Pool, None), (Who::Ray, Some(9.0))];
        let row = Row { job: true, ..Row::new("job-sort", "sort", Unit::Seconds) };
        let row = contenders.iter().fold(row, |row, (who, _)| row.ask(*who, "sort"));
        let row = row.ask_as("Ray, compiled graph", Who::Ray, "graph");
        let outcome = |median: Option<f64>| match median {
            Some(median) => Outcome::Measured(Spread { median, low: median, high: median }),
            None => Outcome::Skipped("no Python".into()),
        };
        let outcomes =
            contenders.iter().map(|(_, median)| outcome(*median)).chain([outcome(Some(1.0))]).collect();
        let job = Measured { row, outcomes, measured: "2026-01-03".into() };
        let page = page(&[measured(300.0), job], &about());
        let (first, _) = page.split_once("## Method").unwrap();
        assert!(first.contains("| job | Mobula | one thread | rayon | Pool | Ray |\n"), "{first}");
        let cells = "| sort | 2.00 s | 3.00 s (1.50 ×) | – | SKIP no Python | 9.00 s (4.50 ×)<br>Ray, compiled graph: \
                     1.00 s (0.50 ×) |";
        assert!(first.contains(cells) && first.contains("Measured 2026-01-03"), "{first}");
        assert!(page.contains("| sort | 2.00 s |") && page.contains("| 2026-01-03 |\n"), "{page}");
    }

    #[test]
    fn another_file_gets_the_headline_between_its_marks() {
        let text = format!("before\n{HEADLINE_BEGIN}old\n{HEADLINE_END}\nafter\n");
        let once = with_headline(&text, &[measured(300.0)]).unwrap();
        assert!(once.starts_with("before\n") && once.ends_with("\nafter\n") && !once.contains("old"));
        assert!(once.contains("\n| put 8 B | 100 ns | 500 × Plasma |\n"), "{once}");
        assert_eq!(with_headline(&once, &[measured(300.0)]), Some(once));
        assert_eq!(with_headline("no marks", &[]), None);
    }

    #[test]
    fn the_terminal_has_the_same_in_columns() {
        let text = table(&[measured(300.0)]);
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("put 8 B") && text.contains("500 × Plasma") && text.ends_with("✓\n"), "{text}");
    }
}
