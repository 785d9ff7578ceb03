//! Addresses of sessions that drivers share: `auto`, a session's directory, or its store's socket.

use std::path::{Path, PathBuf};

use super::super::{directory, surroundings};
use super::description::Description;
use crate::error::{Error, Result};

/// The session of this user that was started last.
const AUTO: &str = "auto";

/// The directory of the session at an address.
pub(super) fn resolve(address: &Path) -> Result<PathBuf> {
    let cannot = |expected: String| Error::Config {
        field: "address",
        value: format!("{:?}", address.display().to_string()),
        expected,
    };
    if address == Path::new(AUTO) {
        let sockets = directory::sessions();
        let shared = sockets.iter().filter_map(|socket| socket.parent());
        let last = shared.filter_map(|path| Some((Description::written(path)?, path))).max();
        let none = || {
            cannot("no session of this user is running that drivers share: `mobula start` starts one".into())
        };
        return last.map(|(_, path)| path.to_owned()).ok_or_else(none);
    }
    let path = surroundings::absolute(address)?;
    let directory = if path.is_dir() { path } else { path.parent().unwrap_or(&path).to_owned() };
    if Description::is_in(&directory) && directory::is_live(&directory) == Some(true) {
        return Ok(directory);
    }
    Err(cannot(
        "auto, or the directory or the store's socket of a running session that `mobula start` has started"
            .into(),
    ))
}
