//! The screen, drawn into memory, and the effects of keys.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::app::{App, Key, Pane, Tab};
use super::draw::{Theme, draw};
use super::orders::{Answer, Order};
use crate::live::sample::{
    ActorRow, Figures, FunctionRow, ResourceRow, Sample, StoreRow, Unknown, WaitRow, WantedRow, WorkerRow,
};
use crate::live::{History, Session};

fn worker(pid: u32, function: &str, cpu: f64) -> WorkerRow {
    WorkerRow {
        pid,
        kind: "worker".into(),
        state: "leased".into(),
        recorded: true,
        function: Some(function.into()),
        task: Some(format!("100.{pid}")),
        running_s: Some(1.25),
        cpu_percent: Some(cpu),
        memory_bytes: Some(64 << 20),
        ..WorkerRow::default()
    }
}

fn sample() -> Sample {
    let driver =
        WorkerRow { kind: "driver".into(), state: "driver".into(), pid: 100, ..WorkerRow::default() };
    let waits = vec![WaitRow { what: "100.7".into(), for_s: 2.0 }];
    let waiting = WorkerRow { waits, ..worker(4711, "look::waits_for", 0.4) };
    let function = |name: &str, rate: f64, failed: u64| FunctionRow {
        function: name.into(),
        calls_per_s: Some(rate),
        failures_per_s: Some(0.0),
        p50_s: Some(2.5e-6),
        p99_s: Some(0.0123),
        failed,
        ..FunctionRow::default()
    };
    Sample {
        figures: Figures {
            calls_per_s: Some(12345.0),
            processes: 4,
            memory_bytes: 1 << 30,
            ..Figures::default()
        },
        workers: vec![driver, waiting, worker(4712, "fit", 99.6), worker(90000, "a\u{1b}[2J", 3.0)],
        functions: vec![function("fit", 10.0, 3), function("predict", 2_500_000.0, 0)],
        actors: vec![
            ActorRow {
                actor: 1,
                class: "Model".into(),
                state: "alive".into(),
                pid: Some(4712),
                queue: Some(17),
                ..ActorRow::default()
            },
            ActorRow { actor: 2, class: "Model".into(), state: "dead".into(), ..ActorRow::default() },
        ],
        store: StoreRow { capacity_bytes: 1 << 30, used_bytes: 1 << 29, ..StoreRow::default() },
        resources: vec![ResourceRow { name: "CPU".into(), total: 4.0, used: 2.0 }],
        ..Sample::default()
    }
}

fn app() -> App {
    let mut app = App::new(1.0);
    app.update(Session::Running, Some(&sample()), History::default());
    app
}

fn press(app: &mut App, code: KeyCode) -> Key {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn write(app: &mut App, text: &str) -> Key {
    let mut last = Key::Nothing;
    for letter in text.chars() {
        last = press(app, KeyCode::Char(letter));
    }
    last
}

fn terminal(app: &App, width: u16, height: u16, has_colours: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app, &Theme::new(has_colours))).unwrap();
    terminal
}

fn screen(app: &App) -> String {
    lines(app, 80, 24).join("\n")
}

fn lines(app: &App, width: u16, height: u16) -> Vec<String> {
    let terminal = terminal(app, width, height, true);
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn workers_show_what_runs_and_waits_in_80_columns() {
    let screen = lines(&app(), 80, 24);
    assert!(screen[0].contains("12.3k calls/s") && screen[0].contains("4 processes"), "{screen:#?}");
    assert!(screen[1].contains("CPU 2/4") && screen[1].contains("store 512 MiB/1 GiB"), "{screen:#?}");
    assert!(screen[2].contains("1 workers (4)") && screen[2].contains("4 store"), "{screen:#?}");
    let row = screen.iter().find(|line| line.contains("4711")).unwrap();
    for part in ["worker", "leased", "look::waits", "1.25 s", "100.7", "64 MiB"] {
        assert!(row.contains(part), "{row:?} has no {part}");
    }
    assert!(screen[23].contains("? keys"), "{screen:#?}");
    assert!(!screen.join("").contains('\u{1b}'), "control characters of other programs are not shown");
}

#[test]
fn the_smallest_and_the_largest_screen_are_drawn() {
    for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
        for tab in "1234".chars() {
            let mut app = app();
            write(&mut app, &tab.to_string());
            terminal(&app, width, height, true);
            write(&mut app, "?");
            terminal(&app, width, height, false);
        }
    }
}

#[test]
fn without_colours_there_are_none() {
    let mut app = app();
    for tab in "1234?".chars() {
        write(&mut app, &tab.to_string());
        let terminal = terminal(&app, 80, 24, false);
        for cell in &terminal.backend().buffer().content {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
        }
    }
}

#[test]
fn functions_are_sorted_by_calls_and_by_what_keys_say() {
    let mut app = app();
    write(&mut app, "2");
    let first = |app: &App| app.table().rows[0].key.clone();
    assert_eq!((app.tab, first(&app)), (Tab::Functions, "predict".to_owned()));
    assert!(screen(&app).contains("CALLS/S▼") && screen(&app).contains("2.5M"), "{}", screen(&app));
    write(&mut app, "r");
    assert_eq!(first(&app), "fit");
    while app.table().sorted_by != 7 {
        write(&mut app, "o");
    }
    assert_eq!(first(&app), "fit", "by failures, the most first");
}

#[test]
fn a_filter_keeps_the_rows_that_contain_it() {
    let mut app = app();
    write(&mut app, "/FIT");
    // While typing, letters are no commands.
    assert!(app.is_typing && app.filter == "FIT");
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.table().rows.len(), 1);
    assert!(screen(&app).contains("only rows with \"FIT\""));
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.table().rows.len(), 4);
    write(&mut app, "/zzz");
    assert!(screen(&app).contains("no row contains"));
}

#[test]
fn the_selected_row_stays_selected_when_rows_move() {
    let mut app = app();
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Down);
    let table = app.table();
    assert_eq!(table.rows[app.position(&table).unwrap()].key, "4712");
    let mut later = sample();
    later.workers.remove(1);
    app.update(Session::Running, Some(&later), History::default());
    let table = app.table();
    assert_eq!(table.rows[app.position(&table).unwrap()].key, "4712");
}

#[test]
fn orders_are_given_after_a_question() {
    let mut app = app();
    // The driver runs no call, and cannot be killed.
    write(&mut app, "k");
    assert!(app.question.is_none() && !app.message.is_empty());
    write(&mut app, "c");
    assert!(app.question.is_none());
    press(&mut app, KeyCode::Down);
    write(&mut app, "k");
    assert!(screen(&app).contains("kill 4711? (y/n)"));
    assert_eq!(write(&mut app, "n"), Key::Nothing);
    write(&mut app, "k");
    assert_eq!(write(&mut app, "y"), Key::Order(Order::Kill("4711".into())));
    write(&mut app, "c");
    assert_eq!(write(&mut app, "y"), Key::Order(Order::Cancel("100.4711".into())));
    assert_eq!(write(&mut app, "s"), Key::Order(Order::Stack(4711)));
    app.answered(Answer::Said("killed 4711".into()));
    assert!(screen(&app).contains("killed 4711"));
    write(&mut app, "3");
    write(&mut app, "k");
    assert_eq!(write(&mut app, "y"), Key::Order(Order::Kill("actor:1".into())));
    assert_eq!(press(&mut app, KeyCode::Char('q')), Key::Quit);
}

#[test]
fn a_log_is_followed_and_closed() {
    let mut app = app();
    press(&mut app, KeyCode::Down);
    assert_eq!(write(&mut app, "l"), Key::Order(Order::Follow(4711)));
    let lines = (0..100).map(|number| format!("line {number}")).collect();
    app.answered(Answer::Lines { pid: 4711, lines });
    app.answered(Answer::Lines { pid: 1, lines: vec!["of another".into()] });
    assert!(screen(&app).contains("log of process 4711") && screen(&app).contains("line 99"));
    press(&mut app, KeyCode::Home);
    assert!(screen(&app).contains("line 0") && !screen(&app).contains("line 99"));
    assert_eq!(press(&mut app, KeyCode::Esc), Key::Order(Order::Unfollow));
    assert!(app.pane.is_none());
    let text = "thread 4711\n  main".to_owned();
    app.answered(Answer::Text { title: "stack of process 4711".into(), text });
    assert!(screen(&app).contains("stack of process 4711") && screen(&app).contains("thread 4711"));
    write(&mut app, "?");
    assert!(matches!(app.pane, Some(Pane::Help)));
}

#[test]
fn what_is_not_known_and_what_is_over_is_said() {
    let mut app = App::new(1.0);
    assert!(screen(&app).contains("looking at the session"));
    let unknown = Unknown {
        what: "calls".into(),
        why: "they are not recorded".into(),
        remedy: "Set MOBULA_EVENTS".into(),
    };
    let empty = Sample { unknown: vec![unknown], ..Sample::default() };
    app.update(Session::Running, Some(&empty), History::default());
    write(&mut app, "2");
    assert!(screen(&app).contains("they are not recorded. Set MOBULA_EVENTS"), "{}", screen(&app));
    app.update(Session::Ended("the session has ended".into()), None, History::default());
    assert!(screen(&app).contains("the session has ended: these are the last figures"));
}

#[test]
fn a_narrow_screen_keeps_what_runs_and_what_it_waits_for() {
    let screen = lines(&app(), 40, 24);
    let head = screen.iter().find(|line| line.contains("PID")).unwrap();
    for name in ["PID", "RUNS", "FOR", "WAITS FOR"] {
        assert!(head.contains(name), "{head:?} has no {name}");
    }
    assert!(!head.contains("MEMORY") && !head.contains("CPU%"), "{head:?}");
    let row = screen.iter().find(|line| line.contains("4711")).unwrap();
    assert!(row.contains("look::") && row.contains("1.25 s") && row.contains("100.7"), "{row:?}");
}

#[test]
fn a_wanted_worker_stands_before_what_may_be_cut_off() {
    let mut app = App::new(1.0);
    let wanted = WantedRow { workers: 1, waited_s: 12.0, ..WantedRow::default() };
    let resource = |name: &str| ResourceRow { name: name.into(), total: 4.0, used: 2.0 };
    let resources = (0..9).map(|number| resource(&format!("licence{number}"))).collect();
    let sample = Sample { wanted: vec![wanted], resources, ..sample() };
    app.update(Session::Running, Some(&sample), History::default());
    let screen = lines(&app, 80, 24);
    assert!(screen[1].starts_with("1 worker wanted for 12 s  store "), "{screen:#?}");
}
