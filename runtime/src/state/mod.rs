//! The present and the recent past of a session: read from the [recorders](mobula_client::internal::recorder) of its
//! processes, and requested from the store and the head.
//!
//! Reading is passive. The recorders are mapped read-only, and no process of the session notices. The store answers a
//! few requests, and the head answers one; if a head does not answer, its part is left out.
//!
//! An [`Observer`] takes [`Snapshot`]s, and everything else is derived from those, without a further look: `tasks`,
//! `summary`, `actors`, `workers`, `why`, `timeline`, `postmortem`.

mod actors;
mod json;
mod memory;
mod objects;
mod overview;
mod postmortem;
mod snapshot;
mod summary;
mod tasks;
mod timeline;
mod unusual;
mod why;
mod workers;

pub use self::actors::ActorState;
pub use self::memory::{Circle, HeldObject, Hold, MemoryGroup, MemoryReport, SiteGroup};
pub use self::objects::{NameState, ObjectState};
pub use self::overview::{DriverState, Overview, ProcessCounts, QueueState, ResourceUse, StoreUse};
pub use self::postmortem::{FormerActor, LastEvent, Postmortem};
pub(crate) use self::snapshot::HEAD_LABEL;
pub use self::snapshot::{HeadReport, Observer, Snapshot, Wanted};
pub use self::summary::FunctionSummary;
pub use self::tasks::{ArgumentSizes, TaskPhase, TaskState};
pub use self::timeline::TraceEvent;
pub use self::unusual::Unusual;
pub use self::why::{NoSuchTarget, Why, WhyLink};
pub use self::workers::WorkerState;
