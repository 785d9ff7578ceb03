//! Descriptor escrow: this client keeps descriptors of the memory and the files of dead owners, so that their objects
//! outlive the daemon too. The next daemon gets them when this client [reconnects](crate::background::reconnect).

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use mobula_protocol::id::OwnerId;
use parking_lot::{Mutex, MutexGuard};

/// The deposits that are kept here, by dead owner.
pub(crate) struct Escrow {
    deposits: Mutex<BTreeMap<OwnerId, Deposit>>,
}

/// The descriptors of one dead owner that are kept here.
pub(crate) struct Deposit {
    pub(crate) control: OwnedFd,
    pub(crate) bell: OwnedFd,
    /// Bytes and descriptor of each segment.
    pub(crate) segments: BTreeMap<u32, (u64, OwnedFd)>,
    /// Bytes and descriptor of each spill file.
    pub(crate) spill_files: BTreeMap<u32, (u64, OwnedFd)>,
}

impl Escrow {
    pub(crate) fn new() -> Self {
        Self { deposits: Mutex::default() }
    }

    /// Keeps an owner's control memory and bell.
    pub(crate) fn keep_owner(&self, owner: OwnerId, control: OwnedFd, bell: OwnedFd) {
        let (segments, spill_files) = (BTreeMap::new(), BTreeMap::new());
        let deposit = Deposit { control, bell, segments, spill_files };
        self.deposits.lock().entry(owner).or_insert(deposit);
    }

    /// Keeps a segment of an owner that is kept.
    pub(crate) fn keep_segment(&self, owner: OwnerId, segment: u32, bytes: u64, descriptor: OwnedFd) {
        if let Some(deposit) = self.deposits.lock().get_mut(&owner) {
            deposit.segments.insert(segment, (bytes, descriptor));
        }
    }

    /// Keeps a spill file of an owner that is kept.
    pub(crate) fn keep_spill_file(&self, owner: OwnerId, file: u32, bytes: u64, descriptor: OwnedFd) {
        if let Some(deposit) = self.deposits.lock().get_mut(&owner) {
            deposit.spill_files.insert(file, (bytes, descriptor));
        }
    }

    /// Drops the deposit of an owner that is forgotten.
    pub(crate) fn drop_owner(&self, owner: OwnerId) {
        let deposit = self.deposits.lock().remove(&owner);
        drop(deposit);
    }

    /// A segment need not be kept any more.
    pub(crate) fn drop_segment(&self, owner: OwnerId, segment: u32) {
        let mut deposits = self.deposits.lock();
        drop(deposits.get_mut(&owner).and_then(|deposit| deposit.segments.remove(&segment)));
    }

    /// A spill file need not be kept any more.
    pub(crate) fn drop_spill_file(&self, owner: OwnerId, file: u32) {
        let mut deposits = self.deposits.lock();
        drop(deposits.get_mut(&owner).and_then(|deposit| deposit.spill_files.remove(&file)));
    }

    /// All deposits. Only the background thread changes them.
    pub(crate) fn deposits(&self) -> MutexGuard<'_, BTreeMap<OwnerId, Deposit>> {
        self.deposits.lock()
    }
}
