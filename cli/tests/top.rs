//! `mobula top` in a real terminal: a pseudo-terminal of 80 columns and 24 lines. If this fails, the screen is garbled,
//! or the terminal is left in a state that needs a `reset`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use mobula_cli_support::watched::{Gate, session, with};
use mobula_cli_support::{eventually, mobula, program};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

/// The program in a terminal, whose screen is read by a thread.
struct Screen {
    child: Child,
    keys: File,
    terminal: OwnedFd,
    parser: Arc<Mutex<vt100::Parser>>,
}

impl Screen {
    fn start(socket: &str, no_color: bool) -> Self {
        Self::start_in(socket, no_color, "xterm-256color")
    }

    fn start_in(socket: &str, no_color: bool, terminal: &str) -> Self {
        let (lines, columns) = (NonZero::new(24).unwrap(), NonZero::new(80).unwrap());
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = mobula(["top", "--interval", "0.1", "--socket", socket], Path::new("/nowhere"));
        command.env("TERM", terminal).env_remove("NO_COLOR").stdin(end()).stdout(end()).stderr(end());
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let child = command.spawn().unwrap();
        let parser = Arc::new(Mutex::new(vt100::Parser::new(lines, columns, 0)));
        let (mut output, its) = (File::from(master.try_clone().unwrap()), parser.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                its.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { child, keys: master.into(), terminal: slave, parser }
    }

    fn shows(&self, text: &str) {
        let mut last = String::new();
        eventually(text, || {
            last = self.parser.lock().unwrap().screen().contents();
            last.contains(text)
        });
    }

    fn text(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// The lines from a row that contains this text on.
    fn rows_from(&self, text: &str) -> Vec<String> {
        self.text().lines().skip_while(|line| !line.contains(text)).map(str::to_owned).collect()
    }

    fn hides(&self, text: &str) {
        eventually(&format!("no {text}"), || !self.text().contains(text));
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs until the file is gone.
#[mobula::remote]
fn spins(path: String) {
    println!("it runs");
    while Path::new(&path).exists() && !mobula::is_cancelled() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_session_is_seen_and_steered_from_a_terminal() {
    let mut watched =
        with(Some("all"), |builder| builder.workers(1).capacity_bytes(64 << 20).forward_output(false));
    let socket = watched.socket.clone();
    let file = tempfile::NamedTempFile::new().unwrap();
    let call = spins::remote(file.path().to_str().unwrap().to_owned());
    let mut screen = Screen::start(&socket, false);
    screen.shows("spins");
    screen.press("2");
    screen.shows("CALLS/S");
    screen.press("4");
    screen.shows("capacity");
    screen.press("?");
    screen.shows("follow the log");
    screen.press("?1/spins\r");
    screen.shows("only rows with");
    screen.press("l");
    screen.shows("(spins) it runs");
    screen.press("\u{1b}");
    screen.press("s");
    screen.shows("stack of process");
    screen.press("q");
    screen.press("c");
    screen.shows("cancel call");
    screen.press("y");
    call.get().unwrap_err();
    screen.shows("cancelled");
    watched.end();
    screen.shows("the session has ended");
    screen.press("q");
    let mut status = None;
    eventually("it ends", || {
        status = screen.child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
    let flags = tcgetattr(&screen.terminal).unwrap().local_flags;
    assert!(flags.contains(LocalFlags::ECHO | LocalFlags::ICANON), "the terminal is as it was");
    eventually("the screen is as it was", || !screen.parser.lock().unwrap().screen().alternate_screen());
    drop(watched);
    // Without colours, in a session of its own.
    let watched = session(1);
    let mut screen = Screen::start(&watched.socket, true);
    screen.shows("driver");
    {
        let parser = screen.parser.lock().unwrap();
        let cells = (0..24).flat_map(|row| (0..80).map(move |column| (row, column)));
        let is_plain = |(row, column)| {
            let cell = parser.screen().cell(row, column).unwrap();
            (cell.fgcolor(), cell.bgcolor()) == (vt100::Color::Default, vt100::Color::Default)
        };
        assert!(cells.into_iter().all(is_plain));
    }
    screen.press("\u{3}");
    eventually("it ends", || screen.child.try_wait().unwrap().is_some());
}

#[mobula::remote]
fn successor(x: u64) -> u64 {
    x + 1
}

struct Named;

#[mobula::remote]
impl Named {
    fn new() -> Self {
        Self
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

#[test]
fn rows_are_sorted_the_screen_pauses_and_the_interval_changes() {
    let watched = session(2);
    // As in tmux and screen.
    let mut screen = Screen::start_in(&watched.socket, false, "screen-256color");
    successor::remote(1).get().unwrap();
    let gate = Gate::closed();
    let running = spins::remote(gate.path());
    screen.shows("spins");
    screen.press("2");
    screen.shows("successor");
    // By the calls of a second, the largest first.
    screen.shows("CALLS/S▼");
    screen.press("o");
    eventually("the next column has the mark", || {
        let text = screen.text();
        text.contains("FAIL/S▲") || text.contains("FAIL/S▼")
    });
    // Through the other columns, and around to the first.
    screen.press("oooooo");
    screen.shows("FUNCTION▲");
    let order = |screen: &Screen| {
        let rows = screen.rows_from("FUNCTION");
        let at = |name: &str| rows.iter().position(|row| row.contains(name));
        at("spins").zip(at("successor")).map(|(spins, successor)| spins < successor)
    };
    eventually("names from a on", || order(&screen) == Some(true));
    screen.press("r");
    screen.shows("FUNCTION▼");
    eventually("names from z on", || order(&screen) == Some(false));
    screen.press(" ");
    screen.shows("paused");
    screen.press(" ");
    screen.hides("paused");
    screen.press("+");
    screen.shows("a look every 0.25 s");
    screen.press("+");
    screen.shows("a look every 0.5 s");
    screen.press("-");
    screen.shows("a look every 0.25 s");
    screen.press("q");
    eventually("it ends", || screen.child.try_wait().unwrap().is_some());
    drop(gate);
    running.get().unwrap();
}

#[test]
fn an_actor_is_killed_after_a_question() {
    let watched = session(1);
    let actor = Named::options(mobula::ActorOptions::new().name("victim")).remote();
    let pid = actor.pid().get().unwrap();
    let mut screen = Screen::start(&watched.socket, false);
    screen.press("3");
    screen.shows("victim");
    screen.press("k");
    screen.shows("kill actor:1? (y/n)");
    screen.press("n");
    screen.hides("(y/n)");
    assert_eq!(actor.pid().get().unwrap(), pid, "any key but y kills nothing");
    screen.press("k");
    screen.shows("(y/n)");
    screen.press("y");
    screen.shows("killed actor:1");
    actor.pid().get().unwrap_err();
    screen.press("\u{3}");
    eventually("it ends", || screen.child.try_wait().unwrap().is_some());
}

#[test]
fn a_screen_that_is_stopped_holds_up_no_call() {
    let watched = session(2);
    let screen = Screen::start(&watched.socket, false);
    screen.shows("driver");
    let top = Pid::from_raw(screen.child.id() as i32);
    kill(top, Signal::SIGSTOP).unwrap();
    eventually("it is stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{top}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
    });
    // So many that every ring of events is written many times, with actors, memory and the death of a process.
    let actor = Named::remote();
    for x in 0..200 {
        let calls: Vec<_> = (0..100).map(|y| successor::remote(x + y)).collect();
        assert_eq!(mobula::get(&calls).unwrap().len(), 100);
        mobula::put(&vec![1_u8; 100_000]).unwrap().get().unwrap();
        assert_ne!(actor.pid().get().unwrap(), 0);
    }
    mobula::kill(&actor).unwrap();
    actor.pid().get().unwrap_err();
    assert_eq!(watched.summary_of("top::successor"), 20_000);
    kill(top, Signal::SIGCONT).unwrap();
    screen.shows("driver");
}

/// Numbers of a function.
trait Summary {
    /// The calls that have finished.
    fn summary_of(&self, function: &str) -> u64;
}

impl Summary for mobula_cli_support::watched::Watched {
    fn summary_of(&self, function: &str) -> u64 {
        let all = self.ask(&["summary", "tasks"]);
        let rows = all["functions"].as_array().unwrap();
        rows.iter().find(|row| row["function"] == function).map_or(0, |row| row["finished"].as_u64().unwrap())
    }
}

/// A server of tmux, which ends with this.
struct Tmux {
    socket: tempfile::TempDir,
}

impl Tmux {
    fn run(&self, words: &[&str]) -> String {
        let socket = self.socket.path().join("tmux.sock");
        let output = Command::new("tmux")
            .arg("-f")
            .arg("/dev/null")
            .arg("-S")
            .arg(socket)
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn shows(&self, text: &str) {
        eventually(text, || self.run(&["capture-pane", "-p"]).contains(text));
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let socket = self.socket.path().join("tmux.sock");
        let _ = Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}

#[test]
fn it_works_in_tmux() {
    if Command::new("tmux").arg("-V").output().is_err() {
        return eprintln!("skipped: tmux is not installed");
    }
    let watched = session(1);
    let tmux = Tmux { socket: tempfile::tempdir().unwrap() };
    let program = program();
    let command = ["top", "--interval", "0.1", "--socket", &watched.socket];
    let new = ["new-session", "-d", "-x", "80", "-y", "24", program.to_str().unwrap()];
    tmux.run(&[&new[..], &command[..]].concat());
    let gate = Gate::closed();
    let running = spins::remote(gate.path());
    tmux.shows("spins");
    tmux.run(&["send-keys", "?"]);
    tmux.shows("follow the log");
    tmux.run(&["send-keys", "?"]);
    tmux.run(&["send-keys", "4"]);
    tmux.shows("capacity");
    drop(gate);
    running.get().unwrap();
}
