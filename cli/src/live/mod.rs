//! The state of a session, sampled at intervals: the figures that `mobula top` and `mobula view` show.
//!
//! A [`Sampler`] takes a [`Sample`] in each interval: plain [rows](sample) for workers, functions, actors, the store
//! and the resources, with the rates since the sample before. A [`Live`] runs it on a thread of its own, and keeps the
//! last sample and a limited [`History`] for charts. So a slow terminal or browser delays nothing else, and a session
//! that does not answer freezes no screen.
//!
//! Sampling is passive: see [`mobula_runtime::state`]. Fields that the processes do not record are empty, and
//! [`Sample::unknown`] lists what is missing, why, and how to record it.
//!
//! This module draws nothing and formats no figures.

mod history;
mod process;
mod rate;
pub(crate) mod sample;
mod sampler;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use history::History;
pub(crate) use sample::Sample;
pub(crate) use sampler::Sampler;
pub(crate) use watch::{Live, Session, Update};
