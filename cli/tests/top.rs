//! `mobula top` in a real terminal: a pseudo-terminal of 80 columns and 24 lines. If this fails, the screen is garbled,
//! or the terminal is left in a state that needs a `reset`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use mobula_cli_support::{eventually, mobula};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

/// The program in a terminal, whose screen is read by a thread.
struct Screen {
    child: Child,
    keys: File,
    terminal: OwnedFd,
    parser: Arc<Mutex<vt100::Parser>>,
}

impl Screen {
    fn start(socket: &str, no_color: bool) -> Self {
        let (lines, columns) = (NonZero::new(24).unwrap(), NonZero::new(80).unwrap());
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = mobula(["top", "--interval", "0.1", "--socket", socket], Path::new("/nowhere"));
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").stdin(end()).stdout(end()).stderr(end());
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
    // SAFETY: no other thread of this program runs yet.
    unsafe { std::env::set_var("MOBULA_EVENTS", "all") };
    let session =
        mobula::Builder::new().workers(1).capacity_bytes(64 << 20).forward_output(false).init().unwrap();
    let socket = session.socket().to_str().unwrap().to_owned();
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
    drop(session);
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
    // Without colours, in a session of its own.
    let session = mobula::Builder::new().workers(1).capacity_bytes(64 << 20).init().unwrap();
    let mut screen = Screen::start(session.socket().to_str().unwrap(), true);
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
