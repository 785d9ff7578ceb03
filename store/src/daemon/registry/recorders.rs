//! The recorders of dead clients: the last events of a process can be read after its death, until enough others have
//! died.

use std::collections::VecDeque;

use mobula_protocol::id::OwnerId;

use crate::daemon::registry::owner::Owner;
use crate::memory::Memory;

/// A client whose events can be read.
pub(crate) struct Recorded<'a> {
    pub(crate) id: OwnerId,
    pub(crate) pid: u32,
    pub(crate) label: &'a str,
    /// Its control memory.
    pub(crate) control: &'a Memory,
    pub(crate) is_dead: bool,
}

impl<'a> From<&'a Owner> for Recorded<'a> {
    fn from(owner: &'a Owner) -> Self {
        let Owner { id, pid, label, control, .. } = owner;
        Self { id: *id, pid: *pid, label, control, is_dead: !owner.is_alive() }
    }
}

/// The remains of a dead client without objects: its recorder.
struct Left {
    id: OwnerId,
    pid: u32,
    label: String,
    control: Memory,
}

/// The recorders of the clients that died last, in the order of their deaths.
#[derive(Default)]
pub(crate) struct Recorders {
    left: VecDeque<Left>,
}

impl Recorders {
    /// Keeps the events of an owner that is forgotten, if it has recorded any, and drops those of the one that died
    /// first.
    pub(crate) fn keep(&mut self, owner: Owner, max: usize) {
        let Owner { id, pid, label, control, .. } = owner;
        if max == 0 || !control.has_events() {
            return;
        }
        control.keep_events();
        while self.left.len() >= max {
            self.left.pop_front();
        }
        self.left.push_back(Left { id, pid, label, control });
    }

    /// The recorders that are kept.
    pub(crate) fn all(&self) -> impl Iterator<Item = Recorded<'_>> {
        self.left.iter().map(|Left { id, pid, label, control }| Recorded {
            id: *id,
            pid: *pid,
            label,
            control,
            is_dead: true,
        })
    }
}
