//! Runs the example programs as users do. If this fails, the first thing that the README tells people to try does not
//! work.
//!
//! Cargo builds the programs for `cargo test`, but not for `cargo test --test programs`; all of them with
//! `cargo test -p mobula-examples --all-features`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Far longer than any of these runs takes: a program that still runs then has hung.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn counters_print_the_two_lists() {
    let run = run("counters", &[]);
    run.succeeded();
    assert_eq!(run.stdout, "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n[2, 3, 4, 5, 6]\n");
    assert_eq!(run.stderr, "");
}

// ---- word counts ----

/// In the order of their names, which is not that of their making.
const TEXTS: [(&str, &[u8]); 5] = [
    ("c.txt", b"Zebra"),
    ("a.txt", b"The cat and the dog. THE END"),
    ("d.txt", b""),
    ("b-latin1.txt", b"Ludwig Ritter von K\xf6chel, Olm\xfctz; the 9th"),
    ("e.txt", b"and so on, and on"),
];

fn corpus() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in TEXTS {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    // Neither of these is an article.
    std::fs::write(directory.path().join(".hidden"), "hidden").unwrap();
    std::fs::create_dir(directory.path().join("directory")).unwrap();
    std::fs::write(directory.path().join("directory/inner.txt"), "inner").unwrap();
    directory
}

#[test]
fn streaming_mapreduce_prints_its_rounds_as_json() {
    let corpus = corpus();
    let run = run(
        "streaming_mapreduce",
        &["--json", "--top", "2", "--mappers", "2", "--reducers", "3", "--articles", path(&corpus)],
    );
    run.succeeded();
    assert_eq!(run.stderr, "");
    let expected = json!({
        "rounds": [
            {"round": 0, "words": 16, "top": [["the", 4], ["and", 1]]},
            {"round": 1, "words": 1, "top": [["zebra", 1]]},
            {"round": 2, "words": 5, "top": [["and", 2], ["on", 2]]},
        ],
        "total": {"words": 22, "distinct": 16, "top": [["the", 4], ["and", 3]]},
    });
    assert_eq!(run.json(), expected);
}

#[test]
fn streaming_mapreduce_prints_a_table_for_people_and_no_progress_bar_into_pipes() {
    let corpus = corpus();
    let run =
        run("streaming_mapreduce", &["--mappers", "5", "--top", "2", "--check", "--articles", path(&corpus)]);
    run.succeeded();
    let expected = "\
round      words  most frequent
    0         22  the 4, and 3

total: 22 words, 16 of them different
        4  the
        3  and
check: rounds 1, words 22, distinct 16: ok
";
    assert_eq!((&*run.stdout, &*run.stderr), (expected, ""));
}

#[test]
fn streaming_mapreduce_ends_after_the_rounds_it_was_asked_for() {
    let corpus = corpus();
    for (rounds, expected) in [("0", 0), ("2", 2), ("3", 3), ("9", 3)] {
        let run = run(
            "streaming_mapreduce",
            &["--rounds", rounds, "--mappers", "2", "--json", "--check", "--articles", path(&corpus)],
        );
        run.succeeded();
        assert_eq!(run.json()["rounds"].as_array().unwrap().len(), expected, "--rounds {rounds}");
    }
}

#[test]
fn streaming_mapreduce_counts_right_with_any_number_of_mappers_and_reducers() {
    let corpus = corpus();
    let file = corpus.path().join("a.txt");
    for (mappers, reducers) in [1, 2, 3].into_iter().flat_map(|mappers| [1, 2, 3].map(|r| (mappers, r))) {
        check_streaming(mappers, reducers, path(&corpus));
    }
    check_streaming(7, 26, path(&corpus));
    check_streaming(40, 2, file.to_str().unwrap());
}

#[test]
fn both_programs_count_real_texts_right() {
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/texts");
    if !texts.is_dir() {
        // Not by a macro: the test harness would hide that.
        let skipped = format!("SKIP both_programs_count_real_texts_right: there is no {}\n", texts.display());
        std::io::stderr().write_all(skipped.as_bytes()).unwrap();
        return;
    }
    let texts = texts.to_str().unwrap();
    let total = check_streaming(1, 1, texts);
    for (mappers, reducers) in (1..=5).flat_map(|mappers| (1..=5).map(move |reducers| (mappers, reducers))) {
        assert_eq!(
            check_streaming(mappers, reducers, texts),
            total,
            "{mappers} mappers, {reducers} reducers"
        );
    }
    for (tasks, reducers) in [("1", "1"), ("2", "5"), ("3", "2"), ("9", "26")] {
        assert_eq!(check_tasks(&["--tasks", tasks, "--reducers", reducers], texts), total);
    }
}

#[test]
fn task_mapreduce_counts_the_same_as_streaming_mapreduce() {
    let corpus = corpus();
    let total = check_streaming(2, 3, path(&corpus));
    assert_eq!(total["words"], 22);
    assert_eq!(check_tasks(&[], path(&corpus)), total);
    for tasks in ["1", "2", "3", "5", "100"] {
        for reducers in ["1", "2", "26"] {
            assert_eq!(check_tasks(&["--tasks", tasks, "--reducers", reducers], path(&corpus)), total);
        }
    }
}

/// Large files are read in parts, by different processes: no word may be lost, cut or counted twice where a part ends,
/// also beside bytes that are no UTF-8.
#[test]
fn words_are_counted_once_wherever_parts_end() {
    let corpus = corpus();
    let total = check_streaming(2, 3, path(&corpus));
    for part_bytes in ["1B", "2B", "3B", "5B", "16B", "1MiB"] {
        let options = ["--part-bytes", part_bytes, "--check", "--json", "--articles", path(&corpus)];
        for program in ["streaming_mapreduce", "task_mapreduce"] {
            assert_eq!(checked_total(&run(program, &options)), total, "{program}, parts of {part_bytes}");
        }
    }
}

#[test]
fn rounds_have_the_number_of_articles_that_was_asked_for() {
    let corpus = corpus();
    for (articles_per_round, words) in [("1", vec![16, 1, 5]), ("2", vec![17, 5]), ("3", vec![22])] {
        let run = run(
            "streaming_mapreduce",
            &[
                "--articles-per-round",
                articles_per_round,
                "--mappers",
                "2",
                "--check",
                "--json",
                "--articles",
                path(&corpus),
            ],
        );
        run.succeeded();
        let rounds = run.json()["rounds"].as_array().unwrap().clone();
        assert_eq!(rounds.iter().map(|round| round["words"].as_u64().unwrap()).collect::<Vec<_>>(), words);
    }
}

#[test]
fn both_programs_compare_themselves_with_rivals() {
    let corpus = corpus();
    for program in ["streaming_mapreduce", "task_mapreduce"] {
        let run = run(program, &["--compare", "2", "--articles", path(&corpus)]);
        run.succeeded();
        let names: Vec<_> = run.stdout.lines().map(|line| line.split("  ").next().unwrap()).collect();
        assert_eq!(names[..4], ["seconds", "Mobula", "one thread", "rayon"], "{run:?}");
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn without_articles_the_repositorys_own_markdown_is_counted() {
    for program in ["streaming_mapreduce", "task_mapreduce"] {
        let run = run(program, &["--check", "--json"]);
        run.succeeded();
        // This crate's README at least.
        assert!(run.json()["total"]["words"].as_u64().unwrap() > 50, "{run:?}");
    }
}

#[test]
fn articles_that_are_not_there_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    for program in ["streaming_mapreduce", "task_mapreduce"] {
        let run_missing = run(program, &["--articles", missing.to_str().unwrap()]);
        run_missing.failed_with(&["cannot find", missing.to_str().unwrap(), "give --articles"]);
        let run_empty = run(program, &["--articles", path(&directory)]);
        run_empty.failed_with(&["there are no articles", path(&directory), "give --articles"]);
        run(program, &["--articles", "/dev/null"]).failed_with(&["\"/dev/null\" is neither a file"]);
    }
}

/// The driver sees only names; the mapper or map task that reads the file finds out.
#[test]
fn an_article_that_cannot_be_read_ends_the_program() {
    let corpus = corpus();
    // A file that not even root can read from its beginning.
    let unreadable = corpus.path().join("b.txt");
    std::os::unix::fs::symlink("/proc/self/mem", &unreadable).unwrap();
    let parts = ["cannot read the article", unreadable.to_str().unwrap(), "make it readable"];
    for program in ["streaming_mapreduce", "task_mapreduce"] {
        run(program, &["--articles", path(&corpus)]).failed_with(&parts);
    }
    // Also when it comes in a later round, and several reducers run into it.
    run("streaming_mapreduce", &["--articles", path(&corpus), "--mappers", "1", "--reducers", "4"])
        .failed_with(&["Reducer::next_reduce_result", "Mapper::get_range", parts[1]]);
    run("task_mapreduce", &["--articles", path(&corpus), "--reducers", "4"])
        .failed_with(&["count_words", parts[1]]);

    // A link that leads nowhere is not left out silently.
    std::fs::remove_file(&unreadable).unwrap();
    std::os::unix::fs::symlink("nowhere", &unreadable).unwrap();
    run("streaming_mapreduce", &["--articles", path(&corpus)]).failed_with(&parts[..2]);
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let check = |program: &str, arguments: &[&str], message: &str| {
        let run = run(program, arguments);
        assert_eq!(run.status.code(), Some(2), "{run:?}");
        assert!(run.stderr.starts_with("error: ") && run.stderr.contains(message), "{run:?}");
    };
    for program in ["streaming_mapreduce", "task_mapreduce"] {
        check(program, &["--reducers", "0"], "1 to 26 reducers");
        check(program, &["--reducers", "27"], "1 to 26 reducers");
        check(program, &["--reducers", "many"], "invalid digit");
    }
    check("streaming_mapreduce", &["--part-bytes", "0"], "at least one byte");
    check("streaming_mapreduce", &["--articles-per-round", "0"], "non-zero");
    check("streaming_mapreduce", &["--mappers", "0"], "1 to 256 mappers");
    check("task_mapreduce", &["--tasks", "0"], "at least one task");
    check("array_pipeline", &["--actors", "0"], "1 to 256 actors");
    check("array_pipeline", &["--bytes", "7"], "8 bytes");
    check("array_pipeline", &["--bytes", "much"], "not a size");
}

/// Runs the program with its own check, and returns the total that it prints.
fn check_streaming(mappers: usize, reducers: usize, articles: &str) -> Value {
    let (mappers, reducers) = (mappers.to_string(), reducers.to_string());
    let run = run(
        "streaming_mapreduce",
        &["--check", "--json", "--mappers", &mappers, "--reducers", &reducers, "--articles", articles],
    );
    checked_total(&run)
}

fn check_tasks(options: &[&str], articles: &str) -> Value {
    let run = run("task_mapreduce", &[options, &["--check", "--json", "--articles", articles]].concat());
    assert_eq!(run.json().as_object().unwrap().len(), 1, "only the total: {run:?}");
    checked_total(&run)
}

fn checked_total(run: &Run) -> Value {
    run.succeeded();
    assert!(run.stderr.starts_with("check: ") && run.stderr.ends_with(": ok\n"), "{run:?}");
    run.json()["total"].clone()
}

// ---- arrays ----

#[test]
fn array_pipeline_copies_nothing_and_computes_right() {
    let run = run("array_pipeline", &["--bytes", "16MiB", "--actors", "4", "--check", "--json"]);
    run.succeeded();
    assert_eq!(run.stderr, "check: actors 4, values as expected, nothing copied: ok\n");
    let report = run.json();
    assert_eq!((&report["bytes"], &report["elements"]), (&json!(16 << 20), &json!(2 << 20)));
    let actors = report["actors"].as_array().unwrap();
    // The elements are 0 to 1023, 2048 times.
    let values: Vec<_> = actors.iter().map(|actor| (&actor["statistic"], &actor["value"])).collect();
    let expected = [("sum", 1_072_693_248.0), ("max", 1023.0), ("mean", 511.5), ("sum", 1_072_693_248.0)];
    let expected = expected.map(|(statistic, value)| (json!(statistic), json!(value)));
    assert_eq!(values, expected.iter().map(|(statistic, value)| (statistic, value)).collect::<Vec<_>>());
    assert!(report["object_id"].is_string());
    assert!(actors.iter().all(|actor| actor["object_id"] == report["object_id"]), "{report}");
    let processes: BTreeSet<_> = actors.iter().map(|actor| actor["pid"].as_u64()).collect();
    assert_eq!(processes.len(), 4, "each actor is a process: {report}");
    let in_store = report["store"]["object_bytes"].as_u64().unwrap();
    assert!((16 << 20..32 << 20).contains(&in_store), "one array: {report}");
}

#[test]
fn array_pipeline_takes_any_size_that_fits() {
    for bytes in ["8", "8191", "1MB"] {
        let run = run("array_pipeline", &["--bytes", bytes, "--actors", "3", "--check"]);
        run.succeeded();
        assert!(run.stdout.ends_with("check: actors 3, values as expected, nothing copied: ok\n"), "{run:?}");
        assert_eq!(run.stderr, "");
    }
    run("array_pipeline", &["--bytes", "1000TiB"]).failed_with(&["do not fit into the store", "--bytes"]);
}

#[test]
fn sample_sort_sorts_any_number_of_numbers_in_any_number_of_ranges() {
    for (bytes, elements) in [("0", 0), ("8", 1), ("100", 12), ("1MiB", 1 << 17)] {
        for (blocks, sorters) in [("1", "1"), ("3", "2"), ("20", "7")] {
            let options = ["--bytes", bytes, "--blocks", blocks, "--sorters", sorters, "--check"];
            let run = run("sample_sort", &options);
            run.succeeded();
            assert!(
                run.stdout.ends_with(&format!("check: numbers {elements}: ok\n")),
                "{options:?}: {run:?}"
            );
        }
    }
    let run = run("sample_sort", &["--bytes", "1MiB", "--compare", "1"]);
    run.succeeded();
    assert!(run.stdout.contains("\none thread ") && run.stdout.contains("\nrayon "), "{run:?}");
}

#[cfg(feature = "arrow")]
#[test]
fn arrow_group_by_finds_the_totals_of_all_batches() {
    // No row, one row, and two batches.
    for (bytes, rows, cities) in [("0", 0, 0), ("24", 1, 0), ("30MB", 1_250_000, 1000)] {
        let run = run("arrow_group_by", &["--bytes", bytes, "--top", "1", "--check"]);
        run.succeeded();
        let check = format!("check: orders {rows}, cities {cities}: ok\n");
        assert!(run.stdout.ends_with(&check), "{bytes}: {run:?}");
    }
    let run = run("arrow_group_by", &["--bytes", "1MB", "--compare", "1"]);
    run.succeeded();
    assert!(run.stdout.contains("\none thread ") && run.stdout.contains("\nrayon "), "{run:?}");
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_group_by_finds_the_totals_of_any_files() {
    // No file, files without rows, a row group for each row, and a last row group that is shorter.
    for (files, rows, group, groups) in
        [("0", "9", "1", 0), ("2", "0", "1", 0), ("1", "5", "1", 5), ("3", "2500", "999", 9)]
    {
        let sizes = ["--files", files, "--rows", rows, "--group", group, "--check"];
        let run = run("parquet_group_by", &sizes);
        run.succeeded();
        assert!(run.stdout.contains(&format!(" in {groups} row groups of {files} files,")), "{run:?}");
        assert!(run.stdout.ends_with(": ok\n"), "{run:?}");
    }
    let run = run("parquet_group_by", &["--files", "2", "--rows", "5000", "--compare", "1"]);
    run.succeeded();
    assert!(run.stdout.contains("\none thread ") && run.stdout.contains("\nrayon "), "{run:?}");
}

#[test]
fn parameter_server_trains_any_number_of_weights_with_any_number_of_servers_and_trainers() {
    for (bytes, weights) in [("4", 1), ("100", 25), ("300kB", 75_000)] {
        for (servers, trainers, rounds) in [("1", "1", "0"), ("2", "3", "4"), ("3", "2", "9")] {
            let counts = ["--servers", servers, "--trainers", trainers, "--rounds", rounds];
            let run = run("parameter_server", &[&["--bytes", bytes, "--check"], &counts[..]].concat());
            run.succeeded();
            let check = format!("check: weights {weights}: ok\n");
            assert!(run.stdout.ends_with(&check), "{bytes} {counts:?}: {run:?}");
        }
    }
    let run = run("parameter_server", &["--bytes", "300kB", "--compare", "1"]);
    run.succeeded();
    assert!(run.stdout.contains("\none thread ") && run.stdout.contains("\nrayon "), "{run:?}");
}

#[test]
fn monte_carlo_stops_early_where_it_is_certain() {
    let options = ["--points", "5", "--side", "24", "--batches", "12", "--tolerance", "0.03", "--check"];
    let run = run("monte_carlo", &options);
    run.succeeded();
    let used = run.stdout.lines().find(|line| line.contains(" batches used in ")).unwrap();
    let used: u32 = used.split(' ').next().unwrap().parse().unwrap();
    assert!((5..=60).contains(&used), "{run:?}");
    assert!(run.stdout.ends_with(&format!("check: batches {used}: ok\n")), "{run:?}");
}

#[test]
fn crash_isolation_survives_each_crash() {
    let run = run("crash_isolation", &["--records", "40", "--broken", "10", "--check"]);
    run.succeeded();
    assert!(run.stdout.starts_with("36 texts measured, 4 crashes survived"), "{run:?}");
    assert!(run.stdout.ends_with("broken records: [9, 19, 29, 39]\ncheck: records 40: ok\n"), "{run:?}");
}

#[test]
fn pipeline_holds_its_stages_back() {
    for (workers, room) in [("1", "1"), ("3", "4")] {
        let size = ["--frames", "40", "--side", "16", "--workers", workers, "--room", room, "--check"];
        let run = run("pipeline", &size);
        run.succeeded();
        assert!(run.stdout.ends_with("check: frames 40: ok\n"), "{run:?}");
    }
}

#[test]
fn two_programs_meet_on_one_store() {
    let run = run("two_programs", &["--blocks", "5", "--numbers", "3000", "--check"]);
    run.succeeded();
    assert!(run.stdout.contains("wrote 5 blocks\n"), "{run:?}");
    assert!(run.stdout.contains("check: blocks 5: ok\n"), "{run:?}");
}

#[test]
fn game_of_life_plays_any_board_in_any_number_of_strips() {
    for (width, height, strips) in [("1", "1", "1"), ("17", "9", "3"), ("40", "40", "2")] {
        let size =
            ["--width", width, "--height", height, "--strips", strips, "--generations", "37", "--check"];
        let run = run("game_of_life", &size);
        run.succeeded();
        assert!(run.stdout.ends_with(": ok\n"), "{size:?}: {run:?}");
    }
}

// ---- a server ----

#[cfg(feature = "http")]
#[test]
fn http_server_answers_ends_the_work_of_clients_that_leave_and_stops_in_order() {
    let run = run("http_server", &["--check"]);
    run.succeeded();
    assert_eq!(run.stderr, "");
    assert!(run.stdout.contains("\n/ping beside 200 requests of 50 ms: median "), "{run:?}");
    assert!(run.stdout.ends_with("check: answers, clients that leave, and the end: ok\n"), "{run:?}");
}

// ---- running a program ----

#[derive(Debug)]
struct Run {
    stdout: String,
    stderr: String,
    status: ExitStatus,
}

/// Runs a program to its end, and makes sure that it leaves nothing behind: no process, no file.
fn run(program: &str, arguments: &[&str]) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let child = Command::new(built(program))
        .args(arguments)
        .env("XDG_RUNTIME_DIR", directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let run = output(child);
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{program} {arguments:?} left {left:?}");
    // The processes of a session have the environment of the one that started it.
    let deadline = Instant::now() + PATIENCE;
    while !processes_with(directory.path()).is_empty() {
        let processes = processes_with(directory.path());
        assert!(Instant::now() < deadline, "{program} {arguments:?} left the processes {processes:?}");
        std::thread::yield_now();
    }
    run
}

/// Where Cargo puts examples, seen from where it puts tests.
fn built(program: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(program);
    assert!(path.exists(), "{} is not built: run `cargo build --examples` first", path.display());
    path
}

fn output(mut child: Child) -> Run {
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).map(|_| text)
        });
        let mut text = String::new();
        let read = stdout.read_to_string(&mut text).map(|_| text);
        // Both end only when every process that had them is gone.
        let errors = errors.join().unwrap();
        let _ = sender.send(());
        (read.unwrap(), errors.unwrap())
    });
    let hung = receiver.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
    if hung {
        let _ = child.kill();
    }
    let (stdout, stderr) = reader.join().unwrap();
    let run = Run { stdout, stderr, status: child.wait().unwrap() };
    assert!(!hung, "hung after {PATIENCE:?}: {run:?}");
    run
}

fn processes_with(directory: &Path) -> Vec<PathBuf> {
    let variable = [b"XDG_RUNTIME_DIR=", directory.as_os_str().as_encoded_bytes()].concat();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let has_it = |process: &PathBuf| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| entry == variable)
    };
    processes.filter(has_it).collect()
}

impl Run {
    #[track_caller]
    fn succeeded(&self) {
        assert!(self.status.success(), "{self:?}");
    }

    /// The program reported its error in one line, and these parts are in it.
    #[track_caller]
    fn failed_with(&self, parts: &[&str]) {
        assert_eq!(self.status.code(), Some(1), "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(parts.iter().all(|part| self.stderr.contains(part)), "{parts:?} in {self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
    }

    /// The output, which is exactly one JSON object.
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn path(directory: &TempDir) -> &str {
    directory.path().to_str().unwrap()
}
