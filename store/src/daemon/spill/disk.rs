//! The disk: a directory of the store's own, and spill files in it that have no name.
//!
//! No death leaves anything behind. If the file system supports it (`O_TMPFILE`), a file never has a name; otherwise
//! its name is removed as soon as the file is made. The directory is made with the first file and removed with the
//! store. It is locked meanwhile, so the next store recognizes and removes the directory of a store that was killed.
//!
//! No other user can interfere: each operation is relative to a descriptor of the configured directory, which belongs
//! to this user or to root; links are not followed; and a new file or directory must not exist before.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use crate::error::StartError;

/// How the names of stores' own directories begin; process id and a number follow.
const PREFIX: &str = "mobula-spill-";
/// Names that are tried for a directory.
const TRIES_MAX: u32 = 100;

/// A place for spill files.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    base: File,
    /// Made with the first file.
    own: Option<OwnDirectory>,
    files_made: u64,
}

#[derive(Debug)]
struct OwnDirectory {
    name: String,
    /// Held while the store lives.
    directory: Flock<File>,
}

impl Disk {
    /// Checks the configured directory, and removes what killed stores left in it.
    pub(crate) fn open(path: &Path) -> Result<Self, StartError> {
        let refuse = |problem: String| StartError::SpillDirectory { directory: path.to_owned(), problem };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let base = match nix::fcntl::open(path, flags, Mode::empty()) {
            Ok(base) => File::from(base),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                return Err(refuse("it is not a directory, or a symbolic link to one".to_owned()));
            }
            Err(error) => return Err(refuse(io::Error::from(error).to_string())),
        };
        let metadata = base.metadata().map_err(|error| refuse(error.to_string()))?;
        if metadata.uid() != geteuid().as_raw() && metadata.uid() != 0 {
            return Err(refuse("it belongs to another user".to_owned()));
        }
        if metadata.mode() & 0o1002 == 0o0002 {
            return Err(refuse("it lets every user remove files of others".to_owned()));
        }
        let disk = Self { path: path.to_owned(), base, own: None, files_made: 0 };
        disk.remove_left_over();
        Ok(disk)
    }

    /// The configured directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A new, empty file without a name.
    ///
    /// # Errors
    /// The system's: a file system that is full or read-only, no descriptors left.
    pub(crate) fn create(&mut self) -> io::Result<File> {
        // With the first file, and when another program has removed it.
        if self.own.as_ref().is_none_or(|own| !self.is_at(&own.directory, &own.name)) {
            self.own = Some(self.make_own()?);
        }
        self.files_made += 1;
        Ok(self.own.as_ref().ok_or(io::ErrorKind::NotFound)?.create(self.files_made)?)
    }

    fn make_own(&self) -> io::Result<OwnDirectory> {
        for number in 0..TRIES_MAX {
            let name = format!("{PREFIX}{}-{number}", std::process::id());
            match mkdirat(&self.base, name.as_str(), Mode::S_IRWXU) {
                Ok(()) => {}
                Err(Errno::EEXIST) => continue,
                Err(error) => return Err(error.into()),
            }
            // A store that has just started may have taken it for left over before it was locked, and removed it.
            if let Some(directory) = self.lock(&name)
                && self.is_at(&directory, &name)
            {
                return Ok(OwnDirectory { name, directory });
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Locks a store's directory that only this user can use; `None` for anything else.
    fn lock(&self, name: &str) -> Option<Flock<File>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = File::from(openat(&self.base, name, flags, Mode::empty()).ok()?);
        let metadata = directory.metadata().ok()?;
        if metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
            return None;
        }
        Flock::lock(directory, FlockArg::LockExclusiveNonblock).ok()
    }

    fn is_at(&self, directory: &File, name: &str) -> bool {
        let there = fstatat(&self.base, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let ours = fstat(directory);
        matches!((there, ours), (Ok(there), Ok(ours)) if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino))
    }

    /// Removes the directories of stores that were killed.
    fn remove_left_over(&self) {
        for name in entries(&self.base) {
            if !name.starts_with(PREFIX) {
                continue;
            }
            let Some(directory) = self.lock(&name) else { continue };
            // Empty, unless a store was killed between making a file and taking its name away.
            for file in entries(&directory) {
                let _ = unlinkat(&*directory, file.as_str(), UnlinkatFlags::NoRemoveDir);
            }
            tracing::info!(name, "removing the spill directory of a store that is dead");
            let _ = unlinkat(&self.base, name.as_str(), UnlinkatFlags::RemoveDir);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(own) = &self.own
            && self.is_at(&own.directory, &own.name)
        {
            let _ = unlinkat(&self.base, own.name.as_str(), UnlinkatFlags::RemoveDir);
        }
    }
}

impl OwnDirectory {
    fn create(&self, number: u64) -> Result<File, Errno> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let common = OFlag::O_RDWR | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        // With O_EXCL it cannot be given a name later.
        match openat(&*self.directory, ".", common | OFlag::O_TMPFILE, mode) {
            Ok(file) => return Ok(File::from(file)),
            // The errors of file systems and kernels that cannot do it.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => {}
            Err(error) => return Err(error),
        }
        let name = format!("file-{number}");
        let file =
            openat(&*self.directory, name.as_str(), common | OFlag::O_CREAT | OFlag::O_NOFOLLOW, mode)?;
        unlinkat(&*self.directory, name.as_str(), UnlinkatFlags::NoRemoveDir)?;
        Ok(File::from(file))
    }
}

/// The names in a directory that is open, as far as they are text.
fn entries(directory: &File) -> Vec<String> {
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

    use super::*;

    fn base() -> tempfile::TempDir {
        tempfile::Builder::new().prefix("mobula-disk-").tempdir().unwrap()
    }

    fn names(base: &Path) -> Vec<String> {
        std::fs::read_dir(base)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn files_have_no_name_and_the_directory_goes_with_the_store() {
        let base = base();
        let mut disk = Disk::open(base.path()).unwrap();
        assert!(names(base.path()).is_empty(), "made before it is needed");
        let file = disk.create().unwrap();
        file.write_all_at(b"bytes", 1000).unwrap();
        let own = base.path().join(&names(base.path())[0]);
        assert!(names(&own).is_empty());
        assert_eq!(std::fs::metadata(&own).unwrap().mode() & 0o777, 0o700);
        // Another program removes it: nothing is lost, and the next file has a directory again.
        std::fs::remove_dir(&own).unwrap();
        disk.create().unwrap();
        let mut read = [0; 5];
        file.read_exact_at(&mut read, 1000).unwrap();
        assert_eq!(&read, b"bytes");
        drop(disk);
        assert!(names(base.path()).is_empty());
    }

    #[test]
    fn only_what_a_dead_store_left_is_removed() {
        let base = base();
        let mut living = Disk::open(base.path()).unwrap();
        living.create().unwrap();
        let left = base.path().join(format!("{PREFIX}1-0"));
        std::fs::create_dir(&left).unwrap();
        std::fs::set_permissions(&left, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(left.join("file-1"), b"left").unwrap();
        // None of these is a store's directory: something else, a link to something else, and a directory into which
        // others can write.
        std::fs::create_dir(base.path().join("other")).unwrap();
        symlink(base.path().join("other"), base.path().join(format!("{PREFIX}2-0"))).unwrap();
        let open_to_all = base.path().join(format!("{PREFIX}3-0"));
        std::fs::create_dir(&open_to_all).unwrap();
        std::fs::set_permissions(&open_to_all, std::fs::Permissions::from_mode(0o777)).unwrap();
        let _other = Disk::open(base.path()).unwrap();
        assert!(!left.exists());
        assert_eq!(names(base.path()).len(), 4, "{:?}", names(base.path()));
        living.create().unwrap();
    }

    #[test]
    fn a_link_a_file_and_a_directory_open_to_all_are_refused() {
        let base = base();
        let check = |path: &Path, expected: &str| {
            let error = Disk::open(path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(&*path.to_string_lossy()), "{error}");
        };
        let directory = base.path().join("directory");
        std::fs::create_dir(&directory).unwrap();
        symlink(&directory, base.path().join("link")).unwrap();
        check(&base.path().join("link"), "symbolic link");
        std::fs::write(base.path().join("file"), b"").unwrap();
        check(&base.path().join("file"), "not a directory");
        check(&base.path().join("nothing"), "No such file");
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        check(&directory, "every user");
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o1777)).unwrap();
        Disk::open(&directory).unwrap();
        if geteuid().is_root() {
            nix::unistd::chown(&directory, Some(12345.into()), None).unwrap();
            check(&directory, "another user");
        } else {
            println!("SKIP: only root can give a directory away");
        }
    }
}
