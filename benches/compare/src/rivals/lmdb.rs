//! LMDB, through heed, on a file system in memory and without ever waiting for a disk: the fastest embedded store there
//! is to compare with, although its objects are copied out of its pages at the next write.

use std::path::Path;
use std::time::Duration;

use heed::byteorder::NativeEndian;
use heed::types::{Bytes, U64};
use heed::{Database, Env, EnvFlags, EnvOpenOptions};

use crate::peer::{self, Failure, Figure, budget, error, median_of_batches, pattern, same_ends};

/// Room for every put of a run.
const MAP_BYTES: usize = 4 << 30;
/// Keys that are put over and over, so that the database stays of one size.
const KEYS: u64 = 100_000;
const BATCH: usize = 1000;

struct Side {
    environment: Env,
    database: Database<U64<NativeEndian>, Bytes>,
    next: u64,
}

/// The side of LMDB. `put BYTES BUDGET` and `get BYTES BUDGET`.
pub(crate) fn serve(directory: &Path) -> Result<(), Failure> {
    let directory = directory.join("lmdb");
    std::fs::create_dir_all(&directory)?;
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES);
    // SAFETY: these flags give up only durability when the machine fails; the file is this process's alone, and no
    // other environment of it is open here.
    let environment = unsafe {
        options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC | EnvFlags::WRITE_MAP);
        options.open(&directory)?
    };
    let mut transaction = environment.write_txn()?;
    let database = environment.create_database(&mut transaction, None)?;
    transaction.commit()?;
    let mut side = Side { environment, database, next: 0 };
    peer::serve(|words| match *words {
        ["put", bytes, time] => side.put(&pattern(bytes.parse()?), budget(time)?),
        ["get", bytes, time] => side.get(&pattern(bytes.parse()?), budget(time)?),
        ["rest"] => Ok(0.0),
        _ => error("no such work"),
    })
}

impl Side {
    /// One write transaction for each.
    fn put(&mut self, value: &[u8], budget: Duration) -> Figure {
        median_of_batches(budget, BATCH, || {
            for _ in 0..BATCH {
                self.next += 1;
                let mut transaction = self.environment.write_txn()?;
                self.database.put(&mut transaction, &(self.next % KEYS), value)?;
                transaction.commit()?;
            }
            let transaction = self.environment.read_txn()?;
            let found = self.database.get(&transaction, &(self.next % KEYS))?;
            same_ends(found.unwrap_or_default(), value)
        })
    }

    /// One read transaction for each.
    fn get(&mut self, value: &[u8], budget: Duration) -> Figure {
        let mut transaction = self.environment.write_txn()?;
        for key in 0..BATCH as u64 {
            self.database.put(&mut transaction, &key, value)?;
        }
        transaction.commit()?;
        median_of_batches(budget, BATCH, || {
            for key in 0..BATCH as u64 {
                let transaction = self.environment.read_txn()?;
                same_ends(self.database.get(&transaction, &key)?.unwrap_or_default(), value)?;
            }
            Ok(())
        })
    }
}
