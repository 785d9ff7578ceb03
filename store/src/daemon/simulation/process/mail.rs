//! The requests of a process, and its reactions to replies and notices.

use super::*;

impl Process {
    /// Reads the next message, if there is one.
    pub(in crate::daemon::simulation) fn receive(&mut self, truths: &Truths) {
        match self.inbox.pop_front() {
            None => {}
            Some(Mail::Notice(notice, attachments)) => self.notice(notice, attachments),
            Some(Mail::Reply(correlation, reply, attachments)) => {
                let request = self.asked.remove(&correlation).expect("an answer to a question");
                self.answer(request, reply, attachments, truths);
            }
        }
    }

    pub(super) fn ask(&mut self, request: Request) {
        self.last_correlation += 1;
        self.asked.insert(self.last_correlation, request.clone());
        self.outgoing.push_back((self.last_correlation, request));
    }

    pub(super) fn answer(
        &mut self,
        request: Request,
        reply: Reply,
        attachments: Vec<Attachment>,
        truths: &Truths,
    ) {
        match (request, reply) {
            (Request::Lease { .. }, Reply::Leased { segment, bytes }) => {
                let mapping = WriteMapping::map(attachments[0].as_fd(), 0, bytes as usize).unwrap();
                for offset in (0..bytes).step_by(PLACE_BYTES as usize) {
                    let word = mapping.word64(offset as usize).load(Ordering::Relaxed);
                    assert_eq!(word, 0, "a lease shows what was in memory before");
                }
                let before = self.segments.insert(segment, Segment { mapping, taken: BTreeSet::new() });
                assert!(before.is_none(), "segment {segment} of {} was leased twice", self.id);
            }
            (Request::GrowTable { .. }, Reply::TableGrown { entries }) => self.add_entries(entries),
            (Request::Attach { owner }, Reply::Attached { .. }) => {
                let peer = Peer {
                    table: TableReader::map(attachments[0].as_fd()).unwrap(),
                    pins: PinWriter::map(self.control.as_fd(), owner.slot()).unwrap(),
                    segments: BTreeMap::new(),
                    holds: BTreeMap::new(),
                    forgotten: false,
                };
                self.peers.insert(owner, peer);
            }
            (Request::MapSegment { owner, segment }, Reply::SegmentMapped { bytes }) => {
                let mapping = ReadMapping::map(attachments[0].as_fd(), 0, bytes as usize).unwrap();
                self.peers.get_mut(&owner).expect("attached").segments.insert(segment, mapping);
                self.end_reading(owner, segment);
            }
            (request @ Request::MapSegment { .. }, reply) => {
                panic!("{request:?} of an object that is held was answered by {reply:?}")
            }
            (Request::Publish { object, .. }, reply) => {
                let gone = matches!(reply, Reply::Failed { refusal: Refusal::NoSuchObject { .. } });
                assert!(!gone || truths.deleted.contains(&object), "{object} is held, and has no name");
                self.let_go(object);
            }
            (Request::Connect { .. }, Reply::Connected { channel, .. }) => {
                self.channels.insert(channel);
            }
            (Request::SpillFile { .. }, Reply::SpillFileMade { file }) => {
                let descriptor = attachments[0].as_fd().try_clone_to_owned().unwrap();
                let made = SpillFile::new(descriptor);
                assert!(self.files.insert(file, made).is_none(), "file {file} was made twice");
            }
            (Request::Restore { object, .. }, reply) => self.restored(object, &reply, truths),
            _ => {}
        }
    }

    pub(super) fn notice(&mut self, notice: Notice, attachments: Vec<Attachment>) {
        match notice {
            Notice::ReaderJoined { reader } => {
                let pins = PinReader::map(attachments[0].as_fd(), self.id.slot()).unwrap();
                self.readers.insert(reader, pins);
                self.readers_heard += 1;
            }
            Notice::ReaderGone { reader } => drop(self.readers.remove(&reader)),
            Notice::OwnerForgotten { owner } => {
                if let Some(peer) = self.peers.get_mut(&owner) {
                    let held = peer.holds.values().find(|hold| hold.found != Found::NotYet);
                    assert!(held.is_none(), "{owner} is forgotten, and {} holds something of it", self.id);
                    peer.forgotten = true;
                }
            }
            Notice::SegmentRetired { owner, segment } => {
                if let Some(peer) = self.peers.get_mut(&owner) {
                    peer.segments.remove(&segment);
                    self.ask(Request::UnmapSegment { owner, segment });
                }
            }
            Notice::Reclaim { .. } => drop(self.release_empty(usize::MAX)),
            Notice::Spill { .. } => drop(self.spilling.get_or_insert(0)),
            Notice::RestoreWanted { object } => drop(self.wanted.insert(object)),
            Notice::ChannelOpened { channel, .. } => drop(self.channels.insert(channel)),
            Notice::ChannelClosed { channel } => drop(self.channels.remove(&channel)),
            _ => {}
        }
    }
}
