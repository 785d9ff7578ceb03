//! The session that a command looks at, and how it shows what it finds.

use std::error::Error;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use mobula_runtime::state::{Observer, Snapshot};
use serde::Serialize;

/// Which session, and in which form.
#[derive(Debug, clap::Args)]
pub(crate) struct Look {
    /// The socket of the session's store. Without it: the one session of this user's that is running.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The session whose directory has this text in its name, such as the pid of the program that started it.
    #[arg(long, value_name = "NAME", conflicts_with = "socket")]
    session: Option<String>,
    /// Print JSON instead of text. Keys may be added; those that are there stay.
    #[arg(long)]
    json: bool,
}

impl Look {
    /// Looks at the session.
    pub(crate) fn look(&self) -> Result<Snapshot, Box<dyn Error>> {
        Ok(self.observer()?.look()?)
    }

    pub(crate) fn observer(&self) -> Result<Observer, Box<dyn Error>> {
        Ok(Observer::connect(self.socket()?)?)
    }

    /// The socket of the session's store.
    pub(crate) fn socket(&self) -> Result<PathBuf, Box<dyn Error>> {
        match &self.socket {
            Some(socket) => Ok(socket.clone()),
            None => only_session(self.session.as_deref()),
        }
    }

    /// Whether the output is for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints what was found: as JSON, or as the text.
    pub(crate) fn show(
        &self,
        found: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Box<dyn Error>> {
        if self.json {
            return print(&(serde_json::to_string_pretty(found)? + "\n"));
        }
        print(&text())
    }
}

/// The only running session, or the one whose directory has this text in its name.
pub(crate) fn only_session(name: Option<&str>) -> Result<PathBuf, Box<dyn Error>> {
    let mut sessions = mobula_runtime::sessions();
    if let Some(name) = name {
        let is_named = |socket: &PathBuf| {
            let directory = socket.parent().and_then(Path::file_name);
            directory.is_some_and(|directory| directory.to_string_lossy().contains(name))
        };
        sessions.retain(is_named);
    }
    match sessions.len() {
        0 if name.is_some() => Err("no session of this name is running: `mobula status` lists all".into()),
        0 => Err("no session of this user's is running: name its store with --socket".into()),
        1 => Ok(sessions.remove(0)),
        count => {
            let sockets: Vec<String> = sessions.iter().map(|socket| socket.display().to_string()).collect();
            let sockets = sockets.join(", ");
            Err(format!(
                "{count} sessions are running: name one of them with --session or --socket: {sockets}"
            )
            .into())
        }
    }
}

/// Prints to standard output. A reader that has read enough, such as `head`, is no error.
pub(crate) fn print(text: &str) -> Result<(), Box<dyn Error>> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

/// A length of time for people: three digits and a unit.
pub(crate) fn seconds(seconds: f64) -> String {
    let (number, unit) = match seconds {
        _ if seconds < 1e-3 => (seconds * 1e6, "µs"),
        _ if seconds < 1.0 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    match number {
        _ if number < 10.0 => format!("{number:.2} {unit}"),
        _ if number < 100.0 => format!("{number:.1} {unit}"),
        _ => format!("{number:.0} {unit}"),
    }
}

/// A length of time for people, if it is known.
pub(crate) fn maybe_seconds(time: Option<f64>) -> String {
    time.map_or_else(|| "-".to_owned(), seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let shown = [2.5e-6, 0.0123, 4.0, 100.0].map(seconds);
        assert_eq!(shown, ["2.50 µs", "12.3 ms", "4.00 s", "100 s"]);
        assert_eq!(maybe_seconds(None), "-");
    }
}
