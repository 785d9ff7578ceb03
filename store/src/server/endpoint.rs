//! The socket's path in the file system. A store takes it without disturbing another store, and gives it up at the end.
//!
//! If nothing lies at the path, the store takes it. If a socket lies there on which no process listens any more, the
//! store replaces it. Anything else is left alone. Two stores that start at the same time wait for each other, by a
//! lock on the directory that ends with the process, so that neither can remove the socket of the other.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mobula_protocol::socket::{NAME_BYTES_MAX, Socket};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use crate::error::StartError;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 256;
/// How long a store waits for another one that is starting in the same directory.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// A socket that listens at a path; dropping it removes the path, unless something else lies there by now.
#[derive(Debug)]
pub(crate) struct Endpoint {
    socket: Socket,
    path: PathBuf,
    /// Device and inode of the socket's file.
    identity: (u64, u64),
    /// Whether it has taken the place of a store that was killed.
    takes_place: bool,
}

impl Endpoint {
    /// Listens at `path`, for this user alone.
    pub(crate) fn bind(path: &Path) -> Result<Self, StartError> {
        let bytes = path.file_name().map_or(0, |name| name.len());
        if bytes > NAME_BYTES_MAX {
            return Err(StartError::NameTooLong { path: path.to_owned(), bytes, max: NAME_BYTES_MAX });
        }
        let directory = open_directory(path)?;
        let _lock = lock(directory)?;
        let takes_place = remove_leftover(path)?;
        // A socket that a failed start leaves would tell the next store that clients may come back. So it is removed,
        // except where clients really may.
        let undo = || _ = (!takes_place).then(|| fs::remove_file(path));
        let socket = Socket::listen(path, BACKLOG)
            .inspect_err(|error| _ = (error.kind() != io::ErrorKind::AddrInUse).then(undo))
            .map_err(StartError::system("listen on the socket"))?;
        // Until this, a stranger might connect, and is refused by its credentials.
        fs::set_permissions(path, Permissions::from_mode(0o600))
            .inspect_err(|_| undo())
            .map_err(StartError::system("restrict the socket to its user"))?;
        let identity =
            identity(path).inspect_err(|_| undo()).map_err(StartError::system("look at the socket"))?;
        Ok(Self { socket, path: path.to_owned(), identity, takes_place })
    }

    /// Whether there was a store at this path that did not remove its socket: its clients may come back.
    pub(crate) fn takes_place(&self) -> bool {
        self.takes_place
    }

    /// The next connection; `None` when there is none now.
    pub(crate) fn accept(&self) -> io::Result<Option<Socket>> {
        self.socket.accept()
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The directory of a path, if only this user and root can move files in it.
fn open_directory(path: &Path) -> Result<File, StartError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let file = File::open(directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StartError::NoDirectory { directory: directory.to_owned() },
        _ => StartError::system("open the directory of the socket")(error),
    })?;
    let metadata = file.metadata().map_err(StartError::system("look at the directory of the socket"))?;
    let owned = metadata.uid() == geteuid().as_raw() || metadata.uid() == 0;
    let problem = if !metadata.is_dir() {
        "is not a directory"
    } else if !owned {
        "belongs to another user"
    } else if metadata.mode() & 0o1002 == 0o0002 {
        "lets every user remove files of others"
    } else {
        return Ok(file);
    };
    Err(StartError::DirectoryNotSafe { directory: directory.to_owned(), problem })
}

fn lock(directory: File) -> Result<Flock<File>, StartError> {
    let give_up = Instant::now() + LOCK_TIMEOUT;
    let mut directory = directory;
    loop {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, error)) if Instant::now() > give_up => {
                return Err(StartError::system("lock the directory of the socket")(error.into()));
            }
            Err((unlocked, _)) => directory = unlocked,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Removes the socket of a store that is dead; `false` when there was none.
fn remove_leftover(path: &Path) -> Result<bool, StartError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StartError::system("look at the socket's path")(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(StartError::NotASocket { path: path.to_owned() });
    }
    match Socket::connect(path).map_err(|error| error.kind()) {
        Err(io::ErrorKind::ConnectionRefused) => {
            tracing::info!(path = %path.display(), "taking over the socket of a store that is dead");
            fs::remove_file(path).map_err(StartError::system("remove the socket of a dead store"))?;
            Ok(true)
        }
        Err(io::ErrorKind::NotFound) => Ok(false),
        // A process that answers in any way is alive.
        _ => Err(StartError::AlreadyRunning { path: path.to_owned() }),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
