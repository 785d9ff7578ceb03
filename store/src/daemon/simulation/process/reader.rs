//! A process as a reader of others' objects: it attaches, pins, looks, reads and detaches.

use super::*;

impl Process {
    /// Sets a pin on an entry in any state. Attaches to the owner first.
    pub(super) fn pin(&mut self, random: &mut Random, truths: &Truths) {
        // The object mostly exists: processes hand on the ids of objects that they hold.
        let there = truths.sealed.keys().nth(random.below(truths.sealed.len().max(1) as u64) as usize);
        let object = there.copied().filter(|_| random.below(4) > 0).or_else(|| any(&truths.ids, random));
        let Some(object) = object.filter(|object| object.owner() != self.id) else { return };
        let owner = object.owner();
        let Some(peer) = self.peers.get_mut(&owner) else {
            let asked = |request: &Request| matches!(request, Request::Attach { owner: id } if *id == owner);
            if !self.asked.values().any(asked) {
                self.ask(Request::Attach { owner });
            }
            return;
        };
        let is_committed = object.index() < self.directory.committed(owner.slot());
        if peer.forgotten || !is_committed || peer.holds.contains_key(&object.index()) {
            return;
        }
        peer.pins.set(object.index(), HELD);
        peer.holds
            .insert(object.index(), Hold { object, found: Found::NotYet, uses: Uses::DIRECT, reading: None });
    }

    /// Looks whether a pinned object is there.
    pub(super) fn look(&mut self, random: &mut Random, truths: &Truths) {
        if let Some((owner, index)) = self.any_hold(random, |hold| hold.found != Found::Sealed) {
            self.look_at(owner, index, truths);
            if random.below(2) == 0 {
                self.read(owner, index);
            }
        }
    }

    pub(super) fn look_at(&mut self, owner: OwnerId, index: u32, truths: &Truths) {
        let Some(peer) = self.peers.get_mut(&owner) else { return };
        let hold = peer.holds.get_mut(&index).expect("just found");
        let word = peer.table.word(index);
        let found = if word.generation() == hold.object.generation() { word.state() } else { None };
        match found {
            Some(State::Sealed | State::Spilled) => {
                assert!(truths.sealed.contains_key(&hold.object), "{} was never sealed", hold.object);
                hold.found = Found::Sealed;
            }
            Some(State::Promised) => hold.found = Found::Promised,
            Some(State::Dying) => {}
            // A deleted object is there only for a process that has found it sealed before. A promise is looked at
            // again when it is settled.
            _ => self.give_up(owner, index),
        }
    }

    pub(super) fn unpin(&mut self, random: &mut Random) {
        let held = |hold: &Hold| hold.found != Found::NotYet && hold.uses.direct > 0;
        if let Some((owner, index)) = self.any_hold(random, held) {
            self.let_go_of_peers(owner, index, Uses::DIRECT);
        }
    }

    /// Asks for the restore or the segment without which this process cannot read an object that it holds.
    pub(super) fn read(&mut self, owner: OwnerId, index: u32) {
        let peer = self.peers.get_mut(&owner).expect("just found");
        let Some(hold) = peer.holds.get_mut(&index) else { return };
        if hold.found != Found::Sealed || hold.reading.is_some() {
            return;
        }
        // The pin comes before the look: the state that this process found earlier may be out of date.
        peer.pins.set(index, HELD | MAPPED);
        let (object, segment) = (hold.object, peer.table.location(index).segment);
        let request = match peer.table.word(index).state() {
            Some(State::Spilled) => {
                hold.reading = Some(Reading::Restore);
                Request::Restore { object, timeout_ms: 40 }
            }
            Some(State::Sealed | State::Deleted) if !peer.segments.contains_key(&segment) => {
                hold.reading = Some(Reading::Map);
                Request::MapSegment { owner, segment }
            }
            _ => return peer.pins.change(index, HELD),
        };
        hold.uses.other += 1;
        self.ask(request);
    }

    /// A restore has succeeded or failed. The use that waited for it ends, and the object can be read.
    pub(super) fn restored(&mut self, object: ObjectId, reply: &Reply, truths: &Truths) {
        let (owner, index) = (object.owner(), object.index());
        match reply {
            // The object may still be in its file, because its owner was looking whether it can be freed. Then the
            // process asks again.
            Reply::Done {} => {}
            Reply::Failed { refusal: Refusal::NotRestored { .. } | Refusal::LimitReached { .. } } => {}
            reply => assert!(truths.deleted.contains(&object), "{object} is held: {reply:?}"),
        }
        self.end_use_for_reading(owner, index);
        self.read(owner, index);
    }

    /// The segment is mapped, and the use that waited for it ends.
    pub(super) fn end_reading(&mut self, owner: OwnerId, segment: u32) {
        let peer = &self.peers[&owner];
        let is_read = |(index, hold): &(&u32, &Hold)| {
            hold.reading == Some(Reading::Map) && peer.table.location(**index).segment == segment
        };
        let (index, _) = peer.holds.iter().find(is_read).expect("kept while the answer comes");
        self.end_use_for_reading(owner, *index);
    }

    pub(super) fn end_use_for_reading(&mut self, owner: OwnerId, index: u32) {
        let peer = self.peers.get_mut(&owner).expect("attached");
        peer.holds.get_mut(&index).expect("kept while the answer comes").reading = None;
        peer.pins.change(index, HELD);
        self.let_go_of_peers(owner, index, Uses::OTHER);
    }

    pub(super) fn let_go_of_peers(&mut self, owner: OwnerId, index: u32, uses: Uses) {
        let peer = self.peers.get_mut(&owner).expect("held");
        let hold = peer.holds.get_mut(&index).expect("held");
        hold.uses.end(uses);
        if !hold.uses.any() {
            self.give_up(owner, index);
        }
    }

    pub(super) fn give_up(&mut self, owner: OwnerId, index: u32) {
        let peer = self.peers.get_mut(&owner).expect("held");
        peer.holds.remove(&index);
        peer.pins.clear(index);
    }

    pub(super) fn detach(&mut self, random: &mut Random) {
        let unused = self.peers.iter().filter(|(_, peer)| peer.holds.is_empty());
        let unused: Vec<OwnerId> = unused.map(|(owner, _)| *owner).collect();
        let unused = any(&unused, random);
        if let Some(owner) = unused.filter(|owner| self.peers[owner].forgotten || random.below(4) == 0) {
            self.leave(owner);
        }
    }

    pub(super) fn leave(&mut self, owner: OwnerId) {
        self.peers.remove(&owner);
        self.ask(Request::Detach { owner });
    }
}
