//! How processes of the session have ended, for the callers whose calls ran in them.
//!
//! A caller sees that a process is gone before it can know how the process ended. Only the parent, the head, learns the
//! exit status. So the caller asks the head, which answers when the process has ended.

use std::collections::VecDeque;
use std::sync::Arc;

use mobula_client::OwnerId;

use crate::error::ExitReason;
use crate::mail::link::Link;
use crate::wire::FromHead;

/// The most ends that are remembered, for callers that ask late.
const KNOWN_MAX: usize = 1024;

/// The ends of processes; see the module's documentation.
#[derive(Default)]
pub(super) struct Deaths {
    known: VecDeque<Death>,
    /// The callers that asked, with the process that each of them asked about.
    asked: Vec<(OwnerId, Arc<Link>)>,
}

#[derive(Clone, Copy)]
struct Death {
    process: OwnerId,
    reason: ExitReason,
    /// How often calls that had begun may be retried if it was ended because memory was short.
    memory_retries: u32,
}

impl Death {
    fn tell(&self, link: &Link) {
        let Self { process, reason, memory_retries } = *self;
        let _ = link.send(&FromHead::Died { process, reason, memory_retries }, Vec::new());
    }
}

impl Deaths {
    /// A caller asks about a process, which may still run.
    pub(super) fn ask(&mut self, from: &Arc<Link>, process: OwnerId, runs: bool) {
        if runs {
            return self.asked.push((process, from.clone()));
        }
        let known = self.known.iter().rev().find(|death| death.process == process).copied();
        let unknown = Death { process, reason: ExitReason::Unknown, memory_retries: 0 };
        known.unwrap_or(unknown).tell(from);
    }

    pub(super) fn died(&mut self, process: OwnerId, reason: ExitReason, memory_retries: u32) {
        let death = Death { process, reason, memory_retries };
        for (_, link) in self.asked.extract_if(.., |(asked, _)| *asked == process) {
            death.tell(&link);
        }
        if self.known.len() == KNOWN_MAX {
            self.known.pop_front();
        }
        self.known.push_back(death);
    }

    pub(super) fn on_caller_gone(&mut self, link: &Arc<Link>) {
        self.asked.retain(|(_, asked)| !Arc::ptr_eq(asked, link));
    }
}
