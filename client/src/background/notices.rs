//! The daemon's notices, and how this client acts on each.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mobula_protocol::message::{Notice, Request};
use mobula_shm::bell::Bell;
use mobula_shm::control::control_bytes;
use mobula_shm::memory::check_received;
use mobula_shm::pins::PinReader;

use crate::background::PendingReaders;
use crate::channel::Incoming;
use crate::event::Event;
use crate::shared::Shared;
use crate::spill::threads::{restore_soon, spill_soon};

/// Acts on a notice.
///
/// # Errors
/// The system's, and a text where descriptors are missing.
pub(super) fn handle(
    shared: &Arc<Shared>,
    notice: Notice,
    mut descriptors: Vec<OwnedFd>,
    pending: &mut PendingReaders,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut take = || {
        if descriptors.is_empty() { Err("a descriptor is missing") } else { Ok(descriptors.remove(0)) }
    };
    let owner = &shared.owner;
    match notice {
        Notice::ReaderJoined { reader } => {
            pending.readers.retain(|known| *known != reader);
            pending.readers.push(reader);
            let (control, bell) = (take()?, take()?);
            let slot = owner.id().slot();
            check_received(control.as_fd(), control_bytes(u32::from(slot) + 1))?;
            let pins = PinReader::map(control.as_fd(), slot)?;
            owner.readers.join(reader, pins, Bell::check_received(bell)?);
            pending.readers.pop();
        }
        Notice::ReaderGone { reader } => {
            if pending.readers.contains(&reader) {
                pending.readers.retain(|known| *known != reader);
                owner.readers.miss();
            }
            owner.readers.leave(reader);
            owner.collect();
        }
        Notice::OwnerDied { owner } => shared.events.send(Event::OwnerDied(owner)),
        Notice::OwnerForgotten { owner } => {
            shared.escrow.drop_owner(owner);
            shared.peers.forget(owner);
        }
        Notice::SegmentRetired { owner, segment } => {
            shared.escrow.drop_segment(owner, segment);
            if let Some(peer) = shared.peers.known(owner) {
                peer.segments.retire(segment);
            }
        }
        Notice::EscrowOwner { owner } => shared.escrow.keep_owner(owner, take()?, take()?),
        Notice::EscrowSegment { owner, segment, bytes } => {
            shared.escrow.keep_segment(owner, segment, bytes, take()?);
        }
        Notice::EscrowSpillFile { owner, file, bytes } => {
            shared.escrow.keep_spill_file(owner, file, bytes, take()?);
        }
        Notice::SpillFileRetired { owner, file } => shared.escrow.drop_spill_file(owner, file),
        Notice::Closing {} => shared.connection.end_with_daemon(),
        Notice::Reclaim { .. } => {
            owner.collect();
            owner.release_empty(u64::MAX);
        }
        Notice::PunchHoles { bytes } => {
            owner.collect();
            owner.release_empty(u64::MAX);
            owner.punch_holes(bytes);
        }
        Notice::Spill { bytes } => spill_soon(shared, bytes),
        Notice::RestoreWanted { object } => restore_soon(shared, object),
        Notice::ChannelOpened { channel, peer, data_bytes } => {
            let ends = take().and_then(|mine| Ok((mine, take()?)));
            let (mine, theirs) = ends.inspect_err(|_| {
                // The other end learns that nothing reads here, and a thread that waits here learns that the channel
                // is closed.
                shared.connection.tell(&Request::Disconnect { channel });
                shared.events.send(Event::ChannelClosed(channel));
            })?;
            shared.channels.add(channel, peer);
            let incoming = Incoming { channel, peer, data_bytes, mine, theirs };
            shared.events.send(Event::ChannelOpened(incoming));
        }
        Notice::NamesChanged { changes } => {
            changes.into_iter().for_each(|change| shared.events.send(Event::NameChanged(change)));
        }
        Notice::ChannelClosed { channel } => {
            shared.channels.remove(channel);
            shared.events.send(Event::ChannelClosed(channel));
        }
        other => tracing::warn!(?other, "a notice of a kind that this build does not know"),
    }
    Ok(())
}
