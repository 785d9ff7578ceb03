//! The contenders' sides that this program has, by the words of the hidden command `peer`.

use std::time::Duration;

use crate::peer::{Failure, error};
use crate::rivals::process::Threads;
use crate::{guard, limits, mobula, rivals, scratch};

/// Becomes the side that the words of the hidden command `peer` say.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    scratch::end_by_signals()?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["mobula" | "mobula-silent" | "mobula-recording", scratch] => mobula::serve(scratch.as_ref(), None),
        ["mobula-sleeping", scratch] => mobula::serve(scratch.as_ref(), Some(Duration::ZERO)),
        ["driver", address] => mobula::session::drive(address.as_ref()),
        ["reader", socket] => mobula::reader::serve(socket.as_ref()),
        ["store", socket, capacity_bytes] => mobula::store::run(socket.as_ref(), capacity_bytes.parse()?),
        ["lmdb", directory] => rivals::lmdb::serve(directory.as_ref()),
        ["iceoryx", directory, prefix] => rivals::iceoryx::serve(directory.as_ref(), prefix),
        ["iceoryx-echo", directory, prefix] => rivals::iceoryx::echo(directory.as_ref(), prefix),
        ["ipc"] => rivals::ipc::serve(),
        ["ipc-echo", name] => rivals::ipc::echo(name),
        ["thread", scratch] => rivals::process::serve(scratch.as_ref(), Threads::One),
        ["rayon", scratch] => rivals::process::serve(scratch.as_ref(), Threads::Rayon),
        ["nothing"] => Ok(()),
        ["limits"] => limits::serve(),
        ["guard", program, ..] => guard::run(program, &words[2..]),
        ["eventfd-echo", there, back] => limits::wake::echo(there.parse()?, back.parse()?),
        ["line-echo", memory] => limits::line::echo(memory.parse()?),
        _ => error(format!("no such side: {words:?}")),
    }
}
