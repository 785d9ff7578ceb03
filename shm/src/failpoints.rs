//! Failpoints: named places in every operation that changes shared state, between its stores, where a process can be
//! made to die.
//!
//! Only the program that kills processes on purpose (`chaos/`) uses the feature `failpoints`. With it, a process can
//! arm one failpoint (`arm`). When it passes there for the n-th time, it kills a process, usually itself. Without the
//! feature, [`failpoint`] does nothing and leaves no trace in a build.
//!
//! A failpoint is one row of the table below and one call of [`failpoint`](fn@failpoint). The name says which step is
//! complete when the process dies there.

/// The process whose code passes a failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassedBy {
    /// A client.
    Client,
    /// The daemon, on behalf of a client.
    Daemon,
    /// A client whose daemon was killed, while it hands its descriptors to the next daemon.
    ReturningClient,
    /// The next daemon, while it rebuilds its state.
    NextDaemon,
}

macro_rules! failpoints {
    ($($(#[$doc:meta])* $failpoint:ident = $name:literal by $party:ident,)*) => {
        /// A point in the code where a process can be killed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Failpoint { $($(#[$doc])* $failpoint,)* }

        impl Failpoint {
            /// All of them.
            pub const ALL: &[Failpoint] = &[$(Failpoint::$failpoint,)*];

            /// Its name: the operation, and the step that is complete.
            pub fn name(self) -> &'static str {
                match self { $(Failpoint::$failpoint => $name,)* }
            }

            /// The process whose code passes it.
            pub fn passed_by(self) -> PassedBy {
                match self { $(Failpoint::$failpoint => PassedBy::$party,)* }
            }
        }
    };
}

failpoints! {
    /// An entry and memory are taken, and one's own pin is set; the word says free.
    CreatePinned = "create.pinned" by Client,
    /// Bytes of an object are about to be written.
    Write = "write.begun" by Client,
    /// An entry that was never sealed has its next generation; it is not in the list of free entries.
    AbortFreed = "abort.freed" by Client,
    /// References are written behind the payload.
    SealReferenced = "seal.referenced" by Client,
    /// The location is in the entry; the word says free.
    SealFilled = "seal.filled" by Client,
    /// The object is there.
    SealStored = "seal.stored" by Client,
    /// The entry says promised.
    PromiseStored = "promise.stored" by Client,
    /// The location of the promised object is in the entry; the word says promised.
    FulfilFilled = "fulfil.filled" by Client,
    /// A promise is settled; no waiter has been rung for.
    SettleStored = "settle.stored" by Client,
    /// One waiter has been rung for.
    SettleRung = "settle.rung" by Client,
    /// An object is deleted.
    DeleteStored = "delete.stored" by Client,
    /// A pin is counted in its group, and not set.
    PinCounted = "pin.counted" by Client,
    /// A pin is set; the word has not been looked at.
    PinStored = "pin.stored" by Client,
    /// A pin has other bits than before.
    PinChanged = "pin.changed" by Client,
    /// A pin is taken back, and still counted in its group.
    UnpinCleared = "unpin.cleared" by Client,
    /// A pin is taken back in all places.
    UnpinUncounted = "unpin.uncounted" by Client,
    /// One entry of a batch says dying.
    FreeDying = "free.dying" by Client,
    /// All entries of a batch say dying, and the fence has been passed.
    FreeFenced = "free.fenced" by Client,
    /// The pins have been looked at; all entries of the batch say dying.
    FreeLooked = "free.looked" by Client,
    /// One entry of a batch is free, or what it was before.
    FreeStored = "free.stored" by Client,
    /// Pages of a segment are not in use any more and back with the system; the daemon does not know it.
    HolePunched = "hole.punched" by Client,
    /// The daemon has been told.
    HoleTold = "hole.told" by Client,
    /// The bytes of an object are in another place as well; its entry says dying.
    CompactDying = "compact.dying" by Client,
    /// The entry says the other place, and dying.
    CompactNoted = "compact.noted" by Client,
    /// The object has moved; its old place is not free in the allocator.
    CompactStored = "compact.stored" by Client,
    /// A file to spill into is made; nothing is in it.
    SpillMade = "spill.made" by Client,
    /// The records of objects are on the disk; all entries say sealed.
    SpillWritten = "spill.written" by Client,
    /// One of the entries says dying.
    SpillDying = "spill.dying" by Client,
    /// The place of its record is noted; the entry says dying.
    SpillNoted = "spill.noted" by Client,
    /// An entry says spilled; its memory is not free in the allocator.
    SpillStored = "spill.stored" by Client,
    /// A spilled object is in memory again; the entry says spilled.
    RestoreRead = "restore.read" by Client,
    /// The new location is in the entry, which says spilled.
    RestoreFilled = "restore.filled" by Client,
    /// The entry says sealed; the place of the record is still noted.
    RestoreStored = "restore.stored" by Client,
    /// Memory is about to be asked for.
    LeaseAsked = "lease.asked" by Client,
    /// A segment was granted; it is mapped nowhere.
    LeaseGranted = "lease.granted" by Client,
    /// The allocator has the segment.
    LeaseNoted = "lease.noted" by Client,
    /// The allocator has given up empty segments; the daemon does not know.
    ReleaseTaken = "release.taken" by Client,
    /// One of them has been given back.
    ReleaseTold = "release.told" by Client,
    /// The daemon has made memory for more entries; the client does not use them.
    GrowGranted = "grow.granted" by Client,
    /// The daemon counts this client as a reader, which has mapped nothing.
    AttachGranted = "attach.granted" by Client,
    /// An owner's table and the pins on it are mapped.
    AttachMapped = "attach.mapped" by Client,
    /// The daemon has been told that nothing of an owner is used any more.
    DetachTold = "detach.told" by Client,
    /// The daemon counts a segment of another's as mapped here; it is not.
    MapGranted = "map.granted" by Client,
    /// A segment of another's is mapped.
    MapMapped = "map.mapped" by Client,
    /// The daemon has been told that a segment is not mapped any more; it is.
    UnmapTold = "unmap.told" by Client,
    /// A new reader's pins can be looked at; it is not counted as heard of.
    ReaderNoted = "reader.noted" by Client,
    /// A producer has said that it waits for room.
    PushStarved = "push.starved" by Client,
    /// The length of a record is written.
    PushBegun = "push.begun" by Client,
    /// A record is written; the tail does not say so.
    PushWritten = "push.written" by Client,
    /// A record is published; its consumer has not been rung for.
    PushPublished = "push.published" by Client,
    /// A record has been copied out, and not dealt with.
    PopCopied = "pop.copied" by Client,
    /// A record is acknowledged; a starved producer has not been rung for.
    PopAdvanced = "pop.advanced" by Client,
    /// The table's header says that its process sleeps.
    SleepBegun = "sleep.begun" by Client,
    /// The table's header says that its process is awake again.
    SleepEnded = "sleep.ended" by Client,
    /// A bell is about to be rung.
    BellRinging = "bell.ringing" by Client,
    /// A bell has been rung.
    BellRung = "bell.rung" by Client,

    /// A new client's memory is made; the directory does not name it.
    HelloEquipped = "hello.equipped" by Daemon,
    /// The directory names a new client, which has no answer yet.
    HelloRecorded = "hello.recorded" by Daemon,
    /// The pages of a new reader's pins are there; it is not counted.
    AttachAllocated = "attach.allocated" by Daemon,
    /// A new reader is counted; its owner has not been told.
    AttachCounted = "attach.counted" by Daemon,
    /// A reader's pins do not count any more.
    DetachUnpinned = "detach.unpinned" by Daemon,
    /// Some pages of a lease are there.
    LeasePrefaulted = "lease.prefaulted" by Daemon,
    /// A table and the pins on it have more pages; the directory does not say so.
    GrowAllocated = "grow.allocated" by Daemon,
    /// A segment is retired; clients that have it mapped have not been told.
    RetireReleased = "retire.released" by Daemon,
    /// The daemon's own pin is set; the word has not been looked at.
    HoldPinned = "hold.pinned" by Daemon,
    /// The daemon's own pin is taken back.
    HoldCleared = "hold.cleared" by Daemon,
    /// A channel is open; neither end has been told.
    ConnectOpened = "connect.opened" by Daemon,
    /// A client is dead; its table is not taken over.
    TakeoverBegun = "takeover.begun" by Daemon,
    /// One promise of a dead client's is lost.
    TakeoverLost = "takeover.lost" by Daemon,
    /// One object that a dead client was about to free is sealed again.
    TakeoverSealed = "takeover.sealed" by Daemon,
    /// One object that a dead client was about to spill is spilled.
    TakeoverSpilled = "takeover.spilled" by Daemon,
    /// A slice of a dead client's table is taken over; the objects that its objects refer to are not held.
    TakeoverSliced = "takeover.sliced" by Daemon,
    /// A dead client's own pins do not count any more; its readers have not been told.
    TakeoverDetached = "takeover.detached" by Daemon,
    /// A slice of an object that a dead client had spilled is in memory.
    OrphanRestoreRead = "orphan-restore.read" by Daemon,
    /// The new location is in a dead client's entry, which says spilled.
    OrphanRestoreFilled = "orphan-restore.filled" by Daemon,
    /// A dead client's entry says sealed again.
    OrphanRestoreStored = "orphan-restore.stored" by Daemon,
    /// The entry of an orphan says dying; the pins have not been looked at.
    SweepDying = "sweep.dying" by Daemon,
    /// The entry of an orphan is free; the objects that it referred to are still held.
    SweepFreed = "sweep.freed" by Daemon,
    /// An owner without objects is forgotten; its readers have not been told.
    SweepForgotten = "sweep.forgotten" by Daemon,
    /// Segments of a dead owner are about to be put into escrow.
    EscrowBegun = "escrow.begun" by Daemon,
    /// A name has its record; the daemon's state does not have it.
    NameStored = "name.stored" by Daemon,

    /// Another daemon is found; it has been told nothing.
    ResumeFound = "resume.found" by ReturningClient,
    /// It has been told who this client is, and nothing else.
    ResumeIntroduced = "resume.introduced" by ReturningClient,
    /// It has been told everything, and has not answered.
    ResumeTold = "resume.told" by ReturningClient,
    /// It has answered; the requests that had waited are not sent.
    ResumeAnswered = "resume.answered" by ReturningClient,

    /// A client has sent its first message.
    RestartClaimed = "restart.claimed" by NextDaemon,
    /// Living clients are taken up; dead owners are not.
    RestartLiving = "restart.living" by NextDaemon,
    /// A dead owner is taken up from its escrow holders.
    RestartDead = "restart.dead" by NextDaemon,
    /// The directory says how many readers an owner has to hear of; it has not heard.
    RestartReaders = "restart.readers" by NextDaemon,
    /// The names are held again; pins without a reason are still there.
    RestartNames = "restart.names" by NextDaemon,
    /// The daemon's state is complete; no client has been told.
    RestartDone = "restart.done" by NextDaemon,
}

/// Passes a failpoint.
#[inline(always)]
pub fn failpoint(failpoint: Failpoint) {
    #[cfg(feature = "failpoints")]
    armed::pass(failpoint);
    #[cfg(not(feature = "failpoints"))]
    let _ = failpoint;
}

#[cfg(feature = "failpoints")]
pub use armed::{arm, disarm};

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::Failpoint;

    const NONE: u32 = u32::MAX;

    static ARMED: AtomicU32 = AtomicU32::new(NONE);
    static PASSES_LEFT: AtomicU64 = AtomicU64::new(0);
    static VICTIM: AtomicI32 = AtomicI32::new(0);

    /// Arms one failpoint: when this process passes `failpoint` for the `nth` time from now on (counted from 1),
    /// `victim` is killed. This replaces the failpoint that was armed before.
    pub fn arm(failpoint: Failpoint, nth: u64, victim: u32) {
        disarm();
        VICTIM.store(victim as i32, Ordering::Relaxed);
        PASSES_LEFT.store(nth.max(1), Ordering::Relaxed);
        // Release: pairs with the load in `pass`.
        ARMED.store(failpoint as u32, Ordering::Release);
    }

    /// Disarms: from now on no process is killed.
    pub fn disarm() {
        ARMED.store(NONE, Ordering::Relaxed);
    }

    pub(super) fn pass(failpoint: Failpoint) {
        if ARMED.load(Ordering::Acquire) == failpoint as u32
            && PASSES_LEFT.fetch_sub(1, Ordering::Relaxed) == 1
        {
            disarm();
            let victim = Pid::from_raw(VICTIM.load(Ordering::Relaxed));
            let _ = kill(victim, Signal::SIGKILL);
            while victim == Pid::this() {
                // The signal is on its way.
                std::thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_failpoint_has_a_name_of_its_own() {
        let names: HashSet<&str> = Failpoint::ALL.iter().map(|failpoint| failpoint.name()).collect();
        assert_eq!(names.len(), Failpoint::ALL.len());
    }
}
