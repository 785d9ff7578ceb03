//! Every descriptor that the store opened for a client is closed when the client is gone. If this fails, a store that
//! runs for days stops accepting clients. Alone in its process, because it counts descriptors.

mod common;

use common::{TestStore, eventually};
use mobula_protocol::message::{Reply, Request};
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::pins::HELD;

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().matches("mobula-").count()
}

#[test]
fn none_is_left_when_clients_have_gone() {
    let store = TestStore::start();
    let mut watcher = store.client();
    watcher.totals();
    let before = (open_descriptors(), mappings());
    for round in 0..20 {
        let mut clients: Vec<_> = (0..5).map(|_| store.client()).collect();
        let owners: Vec<_> = clients.iter().map(|client| client.owner).collect();
        for (place, client) in clients.iter_mut().enumerate() {
            let segment = client.lease(PAGE_BYTES);
            let object = client.seal(0, &segment, 0, &[]);
            let name = format!("{round} {place}").into_bytes();
            assert_eq!(client.publish(&name, object), Reply::Done {});
            let own = client.owner;
            for peer in owners.iter().filter(|owner| **owner != own) {
                client.attach(*peer);
                client.pins_on(*peer).set(0, HELD);
                client.call(&Request::MapSegment { owner: *peer, segment: 1 });
            }
            client.call(&Request::Connect { peer: owners[(place + 1) % owners.len()] });
            // Before the store runs full, which would take the name away as well.
            client.done(&Request::Unpublish { name });
            client.raw.send(&Request::Lease { bytes: 1 << 24, timeout_ms: u64::MAX });
        }
        // Some go with messages that they have not read.
        drop(clients);
        eventually("everyone is gone", || {
            let totals = watcher.totals();
            totals.clients == 1 && totals.dead_clients == 0 && totals.free_bytes == totals.capacity_bytes
        });
        eventually("all is as it was before", || {
            // The watcher was asked to keep the deposits of some of them.
            watcher.totals();
            watcher.raw.forget_notices();
            let now = (open_descriptors(), mappings());
            if now != before {
                println!("round {round}: {now:?} descriptors and mappings, of {before:?}");
            }
            now == before
        });
    }
}
