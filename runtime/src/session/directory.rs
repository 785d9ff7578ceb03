//! Where sessions live in the file system: one directory each. It is locked while the session lives, so the directory
//! of a killed session is not mistaken for one in use.
//!
//! By default they are made in the user's runtime directory, or in the first of some others that can be written to. A
//! session that is made elsewhere has a link in the first of these, so that [`sessions`] finds it too.
//!
//! All paths are absolute from the start: this process, and others of the session, may change their directory.

use std::ffi::OsString;
use std::fs::File;
use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula_client::internal::descriptors::above_standard;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

/// The directory of a session; removed on drop.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// The link to it, if it is not in the directory that is searched for sessions.
    pub(super) link: Option<PathBuf>,
    /// Held while the session lives. A directory whose lock is free belongs to a session that was killed.
    _lock: Lock,
    /// Whether the directory stays after the drop.
    is_left: bool,
}

/// The lock of a session's directory. In a session that drivers share, its process and each driver hold it.
pub(super) type Lock = Flock<File>;

const LOCK: &str = "lock";
const SESSION: &str = "session-";
const FRESH: &str = "new-";
const LINK: &str = "link-";
/// The most attempts to make a directory, while sessions that end remove it again.
const TRIES_MAX: u32 = 100;
/// The age from which a directory without a lock counts as abandoned. Usually it is locked within microseconds.
const FRESH_MAX: Duration = Duration::from_secs(3600);

impl Directory {
    /// Makes one in `base`, or where sessions are made by default.
    pub(super) fn make(base: Option<&Path>) -> io::Result<Self> {
        Self::make_with(base, FlockArg::LockExclusiveNonblock)
    }

    /// Makes one that several processes can lock.
    pub(super) fn make_shared(base: Option<&Path>) -> io::Result<Self> {
        Self::make_with(base, FlockArg::LockSharedNonblock)
    }

    fn make_with(base: Option<&Path>, kind: FlockArg) -> io::Result<Self> {
        if let Some(base) = base {
            let mut directory = Self::make_in(&std::path::absolute(base)?, kind)?;
            directory.link = link_to(&directory.path);
            return Ok(directory);
        }
        let mut refused = Vec::new();
        for base in bases() {
            match Self::make_in(&base, kind) {
                Ok(directory) => return Ok(directory),
                Err(error) => {
                    tracing::warn!(%error, "a session is made elsewhere than where it belongs");
                    refused.push(error.to_string());
                }
            }
        }
        let text = format!(
            "there is no directory for it: {}. Name one that this user can write to, by TMPDIR or Builder::session_dir",
            refused.join("; ")
        );
        Err(io::Error::other(text))
    }

    fn make_in(base: &Path, kind: FlockArg) -> io::Result<Self> {
        let context = |path: &Path, error: io::Error| {
            io::Error::new(error.kind(), format!("cannot make the directory {}: {error}", path.display()))
        };
        make_base(base).map_err(|error| context(base, error))?;
        remove_left_over(base);
        // Under another name until it is locked, so that nobody takes it for left over.
        let (mut number, pid) = (0, std::process::id());
        let fresh = loop {
            let fresh = base.join(format!("{FRESH}{pid}-{number}"));
            match create_for_this_user(&fresh) {
                Ok(()) => break fresh,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                // Another session was the last one in it, and has just ended.
                Err(error) if error.kind() == ErrorKind::NotFound && number < TRIES_MAX => {
                    number += 1;
                    make_base(base).map_err(|error| context(base, error))?;
                }
                Err(error) => return Err(context(&fresh, error)),
            }
        };
        let mut lock = || {
            let lock = above_standard(File::create(fresh.join(LOCK))?.into())?;
            let lock = File::from(lock);
            lock.set_permissions(Permissions::from_mode(0o600))?;
            let lock = Flock::lock(lock, kind).map_err(|(_, error)| io::Error::from(error))?;
            loop {
                let path = base.join(format!("{SESSION}{pid}-{number}"));
                match std::fs::rename(&fresh, &path) {
                    Ok(()) => return Ok(Self { path, link: None, _lock: lock, is_left: false }),
                    // In another container, this number is another process's.
                    Err(error) if is_taken(&error) => number += 1,
                    Err(error) => return Err(error),
                }
            }
        };
        lock().map_err(|error| {
            remove(&fresh, None);
            context(&fresh, error)
        })
    }
}

/// Locks the directory of a session that drivers share, so that it counts as alive.
pub(super) fn hold(directory: &Path) -> io::Result<Lock> {
    let lock = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(directory.join(LOCK))?;
    let lock = File::from(above_standard(lock.into())?);
    Flock::lock(lock, FlockArg::LockSharedNonblock).map_err(|(_, error)| error.into())
}

/// Whether a directory that is not empty has the name already.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty)
}

impl Directory {
    /// Leaves it to the process of a shared session, which has locked it by now.
    pub(super) fn leave(mut self) {
        self.is_left = true;
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.is_left {
            remove(&self.path, self.link.as_deref());
        }
    }
}

/// Removes a session's directory, and the one that all are in by default when it was the last; its link likewise.
pub(super) fn remove(directory: &Path, link: Option<&Path>) {
    if let Some(link) = link {
        let _ = std::fs::remove_file(link);
    }
    let _ = std::fs::remove_dir_all(directory);
    let bases = bases();
    for path in [Some(directory), link].into_iter().flatten() {
        if let Some(base) = path.parent().filter(|parent| bases.iter().any(|base| base == parent)) {
            let _ = std::fs::remove_dir(base);
        }
    }
}

/// Makes the directory that sessions are in, or sees that it is one of this user's.
fn make_base(base: &Path) -> io::Result<()> {
    match create_for_this_user(base) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            std::fs::DirBuilder::new().mode(0o700).recursive(true).create(base)?;
        }
        // A directory that exists is checked below.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match std::fs::symlink_metadata(base) {
        // The directory was removed in between: the caller's next step fails.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) if is_own_directory(base) => Ok(()),
        Ok(_) => {
            let message = "it is not a directory of this user's: give another one";
            Err(io::Error::new(ErrorKind::PermissionDenied, message))
        }
    }
}

/// Makes a directory that only its user can use. Sets the mode afterwards, because a umask may remove the user's own
/// permissions.
fn create_for_this_user(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Where sessions are made, unless a builder says otherwise: in the first of these that can be written to. Relative
/// paths in the environment are ignored, as the specification of these directories requires.
fn bases() -> Vec<PathBuf> {
    let variable = |name| {
        std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute() && path.is_dir())
    };
    let own = OsString::from(format!("mobula-{}", geteuid()));
    let runtime = variable("XDG_RUNTIME_DIR").map(|runtime| runtime.join("mobula"));
    let temporary = variable("TMPDIR").into_iter().chain(["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from));
    runtime.into_iter().chain(temporary.map(|directory| directory.join(&own))).collect()
}

/// Sessions of this user's that are running: their stores' sockets. Also those that were made in a directory of their
/// own, by the option `session_dir`. Reads a few directories.
///
/// ```
/// let session = mobula::init()?;
/// assert!(mobula::sessions().contains(&session.socket().to_owned()));
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use]
pub fn sessions() -> Vec<PathBuf> {
    let mut bases = bases();
    // A service, or another user's shell, may not know it.
    bases.push(PathBuf::from(format!("/run/user/{}/mobula", geteuid())));
    let found = bases.iter().flat_map(|base| entries(base));
    let sessions =
        found.filter_map(|path| if is_link(&path) { std::fs::read_link(path).ok() } else { Some(path) });
    let live = sessions.filter(|path| is_live(path) == Some(true));
    let mut sockets: Vec<_> = live.map(|path| path.join("store.sock")).collect();
    sockets.sort();
    sockets.dedup();
    sockets
}

/// Makes a link to a session that is elsewhere. Without it, only [`sessions`] does not find the session.
fn link_to(session: &Path) -> Option<PathBuf> {
    let bases = bases();
    if session.parent().is_some_and(|base| bases.iter().any(|known| known == base)) {
        return None;
    }
    let base = bases.into_iter().find(|base| make_base(base).is_ok())?;
    remove_left_over(&base);
    let pid = std::process::id();
    (0..TRIES_MAX).map(|number| base.join(format!("{LINK}{pid}-{number}"))).find(|link| {
        // Another session may have been the last one there, and have just ended.
        symlink(session, link).is_ok() || (make_base(&base).is_ok() && symlink(session, link).is_ok())
    })
}

fn is_link(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(LINK))
}

/// The entries of a directory, if it is this user's.
fn entries(base: &Path) -> Vec<PathBuf> {
    if !is_own_directory(base) {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(base) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Whether it is a directory, no link to one, and this user's.
fn is_own_directory(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
}

/// Whether the session of a directory is alive; `None` if the directory is not a session's (yet).
pub(super) fn is_live(directory: &Path) -> Option<bool> {
    directory.file_name()?.to_str()?.strip_prefix(SESSION)?;
    if !directory.is_absolute() || !is_own_directory(directory) {
        return None;
    }
    is_locked(directory)
}

/// Whether a session has the lock of a directory; `None` where there is none.
fn is_locked(directory: &Path) -> Option<bool> {
    // The entry need not be a file: then this does not wait for it.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let lock = File::options().read(true).custom_flags(flags).open(directory.join(LOCK)).ok()?;
    match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(_free) => Some(false),
        Err(_) => Some(true),
    }
}

/// Whether it was made for a session that never locked it.
fn is_abandoned(directory: &Path) -> bool {
    let is_fresh =
        directory.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(FRESH));
    let age = || std::fs::symlink_metadata(directory).ok()?.modified().ok()?.elapsed().ok();
    is_fresh
        && is_own_directory(directory)
        && age().is_some_and(|age| age > FRESH_MAX)
        && is_locked(directory) != Some(true)
}

/// Removes the directories of sessions whose driver and store were killed together, and links that lead to no session.
fn remove_left_over(base: &Path) {
    for path in entries(base) {
        if is_link(&path) {
            let session = std::fs::read_link(&path);
            // A link that is none was not put there by a session.
            if session.is_ok_and(|session| is_live(&session) != Some(true)) {
                let _ = std::fs::remove_file(&path);
            }
        } else if is_live(&path) == Some(false) || is_abandoned(&path) {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}
