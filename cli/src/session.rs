//! The session that a command looks at, and how it shows what it finds.

use std::error::Error;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use mobula_client::ClientError;
use mobula_runtime::state::{Observer, Snapshot};
use mobula_runtime::words::seconds;
use nix::unistd::{Uid, User};
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
        let socket = self.socket()?;
        Observer::connect(&socket).map_err(|error| explain(&socket, error))
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

/// The error if no session runs, with the ways to start one.
pub(crate) const NO_SESSION: &str = "no session of this user's is running: start a program that uses Mobula, or a \
                                     session for several programs by `mobula start`; a session that is somewhere \
                                     else is named with --socket";

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
        0 => Err(NO_SESSION.into()),
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

/// The error in words that fit a person who gave a path.
pub(crate) fn explain(socket: &Path, error: ClientError) -> Box<dyn Error> {
    let ClientError::NoStore { reason, .. } = &error else {
        return format!("the store at {}: {error}", socket.display()).into();
    };
    let shown = socket.display();
    match reason.kind() {
        // Says the path itself, and its length.
        io::ErrorKind::InvalidInput => reason.to_string().into(),
        io::ErrorKind::PermissionDenied => {
            let whose = owner_of(socket).map_or_else(|| "another user".to_owned(), user_name);
            format!(
                "{shown}: {reason}: it belongs to {whose}, and a session can only be looked at by its own user"
            )
            .into()
        }
        _ if std::fs::metadata(socket).is_ok_and(|file| !file.file_type().is_socket()) => {
            format!("{shown} is not a socket").into()
        }
        _ => format!(
            "no store at {shown}: {reason}. `mobula status` lists the sessions that run; a store alone is started by \
             `mobula store --socket {shown} --capacity 2GiB`"
        )
        .into(),
    }
}

/// The user to whom a path belongs, or the directory in which it would be.
fn owner_of(path: &Path) -> Option<u32> {
    path.ancestors().find_map(|path| std::fs::metadata(path).ok()).map(|file| file.uid())
}

/// The name of a user; the number if the system knows none.
fn user_name(user: u32) -> String {
    match User::from_uid(Uid::from_raw(user)) {
        Ok(Some(user)) => user.name,
        _ => format!("user {user}"),
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

/// A length of time for people, if it is known.
pub(crate) fn maybe_seconds(time: Option<f64>) -> String {
    time.map_or_else(|| "-".to_owned(), seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_store_has_a_reason_and_a_remedy() {
        let error = |kind: io::ErrorKind| {
            explain(
                Path::new("/nowhere"),
                ClientError::NoStore { path: "/nowhere".into(), reason: kind.into() },
            )
            .to_string()
        };
        let text = error(io::ErrorKind::PermissionDenied);
        let user = user_name(0);
        assert!(text.contains(&format!("belongs to {user},")) && !text.contains("store`"), "{text}");
        let text = error(io::ErrorKind::ConnectionRefused);
        assert!(text.contains("`mobula store --socket /") && !text.contains("mobula-store"), "{text}");
    }
}
