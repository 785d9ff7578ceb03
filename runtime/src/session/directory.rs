//! Where sessions live in the file system: one directory each, locked while the session lives, so that what a killed one
//! left behind is told from what is in use.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// The directory of a session; removed on drop.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// Held while the session lives: a directory whose lock is free is left over from one that was killed.
    _lock: Flock<std::fs::File>,
}

const LOCK: &str = "lock";
const SESSION: &str = "session-";
/// How often sessions that end may get in the way of one that starts.
const TRIES_MAX: u32 = 100;

impl Directory {
    pub(super) fn make(base: Option<PathBuf>) -> std::io::Result<Self> {
        let base = base.unwrap_or_else(sessions_dir);
        let context = |what: &str, path: &Path, error: std::io::Error| {
            std::io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
        };
        make_base(&base).map_err(|error| context("cannot make the directory", &base, error))?;
        remove_left_over(&base);
        // Under another name until it is locked, so that nobody takes it for left over.
        let (mut number, pid) = (0, std::process::id());
        let (fresh, path) = loop {
            let fresh = base.join(format!("new-{pid}-{number}"));
            match std::fs::DirBuilder::new().mode(0o700).create(&fresh) {
                Ok(()) => break (fresh, base.join(format!("{SESSION}{pid}-{number}"))),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                // Another session was the last one in it, and has just ended.
                Err(error) if error.kind() == ErrorKind::NotFound && number < TRIES_MAX => {
                    number += 1;
                    make_base(&base).map_err(|error| context("cannot make the directory", &base, error))?;
                }
                Err(error) => return Err(context("cannot make the directory", &fresh, error)),
            }
        };
        let lock = std::fs::File::create(fresh.join(LOCK))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
        std::fs::rename(&fresh, &path).map_err(|error| context("cannot make the directory", &path, error))?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes a session's directory, and the one that all are in by default when it was the last.
pub(super) fn remove(directory: &Path) {
    let _ = std::fs::remove_dir_all(directory);
    if let Some(base) = directory.parent().filter(|base| *base == sessions_dir()) {
        let _ = std::fs::remove_dir(base);
    }
}

/// Makes the directory that sessions are in, or sees that it is one of this user's.
fn make_base(base: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(base)?;
    let found = match std::fs::symlink_metadata(base) {
        // It went in between; whoever goes on will notice.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
        let message = "it is not a directory of this user's: give another one";
        return Err(std::io::Error::new(ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

/// Where sessions are made, unless a builder says otherwise.
fn sessions_dir() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|path| Path::new(path).is_dir()) {
        Some(runtime) => Path::new(&runtime).join("mobula"),
        None => PathBuf::from(OsString::from(format!("/tmp/mobula-{}", nix::unistd::geteuid()))),
    }
}

/// Sessions of this user's that are running: their stores' sockets.
///
/// ```
/// let _mobula = mobula::init()?;
/// assert!(mobula::sessions().contains(&_mobula.socket().to_owned()));
/// # Ok::<(), mobula::Error>(())
/// ```
pub fn sessions() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(sessions_dir()) else { return Vec::new() };
    let mut sockets: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_live(path) == Some(true))
        .map(|path| path.join("store.sock"))
        .collect();
    sockets.sort();
    sockets
}

/// Whether the session of a directory is alive; `None` for a directory that is not (yet) a session's.
fn is_live(directory: &Path) -> Option<bool> {
    directory.file_name()?.to_str()?.strip_prefix(SESSION)?;
    let lock = std::fs::File::open(directory.join(LOCK)).ok()?;
    match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(_free) => Some(false),
        Err(_) => Some(true),
    }
}

/// Removes what sessions left whose driver and store were killed together.
fn remove_left_over(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if is_live(&path) == Some(false) {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}
