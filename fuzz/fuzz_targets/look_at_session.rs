//! A session of three processes that write anything into their recorders. No number, name or time makes a command panic
//! that looks at the session, or gives it more rows than there are events.
#![no_main]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mobula_fuzz::store::{Peer, socket};
use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Reply, Request};
use mobula_runtime::state::{Observer, Snapshot};
use mobula_shm::clock::Moment;
use mobula_shm::mapping::WriteMapping;
use mobula_shm::recorder::{EventBuffer, Kind, RECORDER_BYTES, Recorder};
use mobula_shm::table::TABLE_BYTES;

/// Events of a recorder, of all buffers.
const EVENTS: usize = 4096 + 4096 + 1024;

/// Words of the header that say something: the layout, the beginning, the kinds and the number of names; the numbers of
/// events of each buffer; what runs; the queues; and what two threads wait for.
const HEADER: [usize; 24] =
    [0, 1, 2, 3, 4, 8, 16, 24, 32, 33, 34, 35, 36, 40, 41, 42, 64, 65, 66, 67, 72, 73, 74, 75];

// `seeds.rs` knows these in their order, with the bytes of their fields.
#[derive(Debug, Arbitrary)]
enum Step {
    /// An event with numbers that fit others, or do not.
    Record {
        process: u8,
        buffer: u8,
        kind: u8,
        detail: u8,
        name: u8,
        values: [u8; 6],
    },
    /// A word of the header.
    Spoil {
        process: u8,
        word: u8,
        value: u8,
    },
    /// A word anywhere: events, names, counts.
    Write {
        process: u8,
        word: u32,
        value: u64,
    },
    Name {
        process: u8,
        text: [u8; 4],
    },
}

struct Process {
    owner: OwnerId,
    control: OwnedFd,
    recorder: WriteMapping,
    joined: Moment,
    /// Its connection, which lives as long as it does.
    _peer: Peer,
}

struct Session {
    observer: Observer,
    processes: Vec<Process>,
}

thread_local! {
    static SESSION: Session = {
        let processes = ["driver 1", "worker 2", "worker 3"].map(Process::join).into();
        Session { observer: Observer::connect(socket()).expect("the store accepts"), processes }
    };
}

fuzz_target!(|steps: Vec<Step>| SESSION.with(|session| session.run(&steps)));

impl Process {
    fn join(label: &str) -> Self {
        let peer = Peer::connect();
        let (reply, mut descriptors) = peer.call(&Request::Hello { label: label.into(), serial: 1 });
        let Reply::Welcome { owner, .. } = reply else { panic!("{reply:?}") };
        let control = descriptors.swap_remove(0);
        let recorder = WriteMapping::map(control.as_fd(), TABLE_BYTES, RECORDER_BYTES as usize);
        Self { owner, control, recorder: recorder.expect("a mapping"), joined: Moment::now(), _peer: peer }
    }
}

impl Session {
    fn run(&self, steps: &[Step]) {
        let recorders: Vec<Recorder> = self.processes.iter().map(Process::begin).collect();
        let at = |process: u8| usize::from(process) % self.processes.len();
        for step in steps {
            match *step {
                Step::Record { process, buffer, kind, detail, name, values } => {
                    let (buffer, kind) = (
                        EventBuffer::ALL[usize::from(buffer) % 3],
                        Kind::ALL[usize::from(kind) % Kind::ALL.len()],
                    );
                    let values = values.map(|value| self.number(value));
                    recorders[at(process)].record(buffer, kind, detail, name.into(), values);
                }
                Step::Spoil { process, word, value } => self.processes[at(process)]
                    .write(HEADER[usize::from(word) % HEADER.len()], self.number(value)),
                Step::Write { process, word, value } => {
                    self.processes[at(process)].write(word as usize, value)
                }
                Step::Name { process, text } => {
                    _ = recorders[at(process)].name(&String::from_utf8_lossy(&text))
                }
            }
        }
        self.look();
    }

    /// A number of a call, the id of a process, or one that is too large in one way or another.
    fn number(&self, value: u8) -> u64 {
        match value {
            0..160 => (value % 16).into(),
            160..192 => self.processes[usize::from(value) % self.processes.len()].owner.bits(),
            _ => u64::MAX >> (value - 192),
        }
    }

    /// Everything that commands show.
    fn look(&self) {
        let seen: Snapshot = self.observer.look().expect("the store answers");
        let events = self.processes.len() * EVENTS;
        let tasks = seen.tasks();
        assert!(tasks.len() <= 2 * events, "{} calls", tasks.len());
        assert!(seen.timeline().len() <= 16 * events);
        let trace = seen.timeline_json(&seen.timeline());
        assert!(trace.starts_with('{') && trace.ends_with('}'));
        let workers = seen.workers();
        assert_eq!(workers.len(), self.processes.len());
        let targets = tasks.iter().take(16).map(|task| task.task.clone());
        let targets = targets.chain(workers.iter().map(|worker| worker.pid.to_string()));
        for target in targets.chain(["actor:1".to_owned(), "actor:18446744073709551615".to_owned()]) {
            let _ = (seen.why(&target), seen.postmortem(&target));
        }
        let _ = (seen.summary(), seen.actors(), seen.drivers(), seen.queues(), seen.overview(), seen.head());
        let _ = (seen.postmortems(), seen.lost_events(), seen.now_s());
        seen.objects(&self.observer).expect("the store answers");
        seen.names(&self.observer).expect("the store answers");
        seen.memory(&self.observer).expect("the store answers");
    }
}

impl Process {
    /// A recorder with nothing in it.
    fn begin(&self) -> Recorder {
        self.recorder.store_words(0, &vec![0; RECORDER_BYTES as usize]);
        let recorder = Recorder::map(self.control.as_fd(), u32::MAX).expect("a mapping");
        // It began long ago: from a shorter time, the scale of ticks takes a pause to be exact.
        self.write(1, self.joined.ticks);
        self.write(2, self.joined.nanos);
        recorder
    }

    fn write(&self, word: usize, value: u64) {
        self.recorder.word64(word % (RECORDER_BYTES as usize / 8) * 8).store(value, Ordering::SeqCst);
    }
}
