//! Another client of a store, in a process of its own: it gets the objects that the owner has put.
//!
//! Ids come in an object whose bytes they are. Getting it also attaches this client to the owner before anything is
//! timed.

use std::path::Path;
use std::time::Instant;

use mobula_client::{Client, ConnectOptions, Object, ObjectId};

use crate::peer::{self, Failure, Figure, budget, check, error, median_of_batches, sum};

/// Takes commands.
pub(crate) fn serve(socket: &Path) -> Result<(), Failure> {
    let client = ConnectOptions::new().label("reader").connect(socket)?;
    let mut held = Vec::new();
    peer::serve(|words| match *words {
        ["get-first", ids, first, last] => {
            get_first(&client, &client.get(ids.parse()?)?, first.parse()?, last.parse()?)
        }
        ["get-held", id, first, last, time] => {
            let (id, first, last): (ObjectId, u8, u8) = (id.parse()?, first.parse()?, last.parse()?);
            let _held = client.get(id)?;
            median_of_batches(budget(time)?, 1000, || {
                for _ in 0..1000 {
                    check_ends(&client.get(id)?, first, last)?;
                }
                Ok(())
            })
        }
        // The second id was met before, so this process knows its owner.
        ["read", id, met, expected] => {
            let (id, expected): (ObjectId, u64) = (id.parse()?, expected.parse()?);
            drop(client.get(met.parse()?)?);
            let start = Instant::now();
            let object = client.get(id)?;
            let total = sum(&object);
            let taken = start.elapsed().as_secs_f64();
            check(total == expected, "the reader sums other bytes than were put")?;
            Ok(taken)
        }
        ["hold", id] => {
            held.push(client.get(id.parse()?)?);
            Ok(held.len() as f64)
        }
        _ => error("no such work"),
    })
}

/// The time of a get and of letting go again, for each of the objects whose ids are given.
fn get_first(client: &Client, ids: &Object, first: u8, last: u8) -> Figure {
    let (ids, _) = ids.as_chunks::<{ ObjectId::BYTES }>();
    let start = Instant::now();
    for id in ids {
        check_ends(&client.get(ObjectId::from_bytes(*id))?, first, last)?;
    }
    Ok(start.elapsed().as_secs_f64() / ids.len().max(1) as f64)
}

#[inline]
fn check_ends(object: &Object, first: u8, last: u8) -> Result<(), Failure> {
    if object.first() == Some(&first) && object.last() == Some(&last) {
        Ok(())
    } else {
        Err(Failure::Wrong("a reader gets other bytes than were put".into()))
    }
}
