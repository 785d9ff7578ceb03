//! How drivers share the resources of one session.
//!
//! Each driver's head has *leases* of resources, and hands out these resources as if there were no others. For more, it
//! asks the session's process, where the [division](division) grants leases to heads as a [pool](super::pool) grants
//! workers to callers: in rotation, with reservations for large demands. The division recalls leases of drivers that
//! have more than others. A head keeps a lease while it uses it.
//!
//! [`member`](Share) is the head's side, and [`serve`] the side of the session's process. When that process is killed,
//! heads go on with the leases that they have, and tell the next process about them.

mod division;
mod member;
mod server;
#[cfg(test)]
mod simulation;

use serde::{Deserialize, Serialize};

pub(crate) use self::division::Division;
pub(super) use self::member::Share;
pub(crate) use self::server::serve;
use crate::resources::Resources;

/// A message to the session's process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToSession {
    /// The first message of a driver, with the leases that it has from a process that was killed.
    Join { leases: Vec<Lease> },
    /// The driver wants this many more leases for a demand. Replaces its earlier request for it.
    Want { demand: Resources, leases: u32 },
    /// The driver no longer needs a lease.
    Return { lease: u64 },
    /// The driver keeps a lease that was recalled, because actors have its resources.
    Keep { lease: u64 },
    /// Asks which resources no driver has. Answered by `Free`.
    AskFree,
    /// Stops the session.
    Stop,
}

/// A message from the session's process to a driver.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum FromSession {
    Granted(Lease),
    /// Another driver needs the lease more: return it as soon as its resources are free.
    Recall {
        lease: u64,
    },
    /// The resources that no driver has.
    Free {
        resources: Resources,
    },
}

/// The right of a driver to use resources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) number: u64,
    pub(crate) demand: Resources,
    /// The GPUs, in the number that the demand gives.
    pub(crate) gpus: Vec<usize>,
}

impl Lease {
    /// Its resources, with single GPUs.
    fn resources(&self) -> Resources {
        self.demand.on_gpus(&self.gpus).into_owned()
    }
}
