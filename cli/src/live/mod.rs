//! What goes on in a session, looked at again and again: the figures that `mobula top` and `mobula view` show.
//!
//! A [`Sampler`] looks once an interval, and turns each look into a [`Sample`]: plain rows for workers, functions,
//! actors, the store and the resources, with rates against the look before. A [`Live`] does so on a thread of its own,
//! and keeps the last sample and a bounded [`History`] for charts, so that a terminal or a browser that is slow holds
//! up nobody, and a session that does not answer freezes no screen.
//!
//! Looking is passive: see [`mobula_runtime::state`]. What processes do not record is not known here either; then the
//! fields are empty, and [`Sample::unknown`] says what is missing, why, and what to do.
//!
//! This module draws nothing and decides nothing about how figures look.

#![allow(dead_code, unused_imports, reason = "each screen takes what it shows")]

mod history;
mod process;
mod rate;
mod sample;
mod sampler;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use history::{History, Point};
pub(crate) use sample::{
    ActorRow, Figures, FunctionRow, Look, ResourceRow, Sample, StoreRow, Unknown, WaitRow, WantedRow,
    WorkerRow,
};
pub(crate) use sampler::Sampler;
pub(crate) use watch::{Live, Session, Update};
