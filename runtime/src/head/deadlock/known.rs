//! The head's knowledge of actors and resources, for the search for deadlocks.

use std::collections::BTreeSet;
use std::sync::Arc;

use mobula_client::OwnerId;

use super::{ActorIs, World};
use crate::demand::Demand;
use crate::head::actors::{Actors, Stands};
use crate::head::pool::Pool;
use crate::mail::link::Link;

pub(in crate::head) struct Known<'a> {
    pub(in crate::head) actors: &'a Actors<Arc<Link>>,
    pub(in crate::head) pool: &'a Pool<Arc<Link>>,
}

impl World for Known<'_> {
    fn actor(&self, actor: u64) -> ActorIs {
        match self.actors.stands(actor) {
            Stands::Waiting(demand) => ActorIs::Waiting(demand.clone()),
            Stands::Constructing(process) => match self.pool.link(process) {
                Some(link) => ActorIs::Constructed(link.peer),
                None => ActorIs::There,
            },
            Stands::There => ActorIs::There,
        }
    }

    fn holders(&self, demand: &Demand, stuck: &BTreeSet<OwnerId>) -> Option<Vec<OwnerId>> {
        self.pool.holders(demand, |process| stuck.contains(&process))
    }
}
