//! The division of a session's resources among drivers: real heads' sides, the real session's process, and the real
//! messages between them, over pairs of sockets, without processes. A seed decides who takes the next step.
//!
//! Drivers join, end, and die with their processes. Each has a real pool, whose callers want workers for random
//! demands, use them, and give them back, and whose actors keep what they demand. The session's process is killed, and
//! the next one takes its place: the drivers tell it what they have. After each step:
//!
//! - the processes of all drivers together have no more than the session has, and no GPU is used above 1;
//! - a driver uses no more than it has leases for;
//! - the leases of all drivers fit into the session.
//!
//! And when everything has arrived:
//!
//! - both sides know the same leases;
//! - where all want all, none has fewer leases than another by more than one;
//! - every driver that wants is served eventually, however much it demands;
//! - everything is given back.
//!
//! [Seeds](crate::simulated) are those of all simulations.

mod driver;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mobula_client::internal::Socket;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use self::driver::Driver;
use super::division::{Division, RESUME_WINDOW};
use super::server::Drivers;
use crate::demand::Demand;
use crate::head::pool::simulated::Offer;
use crate::resources::Resources;
use crate::simulated::{Random, for_each_of};

/// Schedules of an ordinary run.
const SCHEDULES: u64 = 100;
const STEPS: usize = 250;
const DRIVERS_MAX: usize = 4;
/// The most rounds at the end until each driver is served, and until all have as much as each other.
const ROUNDS_MAX: usize = 600;
/// The most turns until everything that was sent has arrived.
const TURNS_MAX: usize = 50;

#[test]
fn drivers_share_what_there_is() {
    for_each_of(SCHEDULES, "share::simulation", |seed| Session::new(seed).run());
}

struct Session {
    random: Random,
    now: Instant,
    total: Resources,
    demands: Vec<Demand>,
    kept: usize,
    drivers: BTreeMap<u64, Driver>,
    driver_last: u64,
    /// The session's process; `None`: it was killed.
    process: Option<Drivers>,
    /// The time before which all drivers that were there have told the new process what they have.
    resumes_until: Option<Instant>,
}

impl Session {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let Offer { kept, total, demands } = Offer::random(&mut random);
        let now = Instant::now();
        let mut session = Self {
            random,
            now,
            process: Some(Drivers::new(Division::new(total.clone(), false, now))),
            total,
            demands,
            kept,
            drivers: BTreeMap::new(),
            driver_last: 0,
            resumes_until: None,
        };
        session.join();
        session
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            self.step();
            self.check();
        }
        self.end();
    }

    fn step(&mut self) {
        let Some(number) = self.any_driver() else { return self.join() };
        let now = self.now;
        let driver = self.drivers.get_mut(&number).expect("just found");
        match self.random.below(32) {
            0..=4 => driver.want(&mut self.random, &self.demands, now),
            5..=9 => driver.go_on(&mut self.random, now),
            10 | 11 => driver.register_one(&mut self.random, now),
            12 => driver.add_actor(self.random.below(self.demands.len())),
            13 => driver.end_one(&mut self.random),
            14..=22 => self.turn(),
            23..=25 => {
                let millis = [10, 100, 400, 1500][self.random.below(4)];
                self.pass(Duration::from_millis(millis));
            }
            26 if self.drivers.len() < DRIVERS_MAX => self.join(),
            27 if self.random.below(3) == 0 => _ = self.drivers.remove(&number),
            28 if self.random.below(4) == 0 => self.process = None,
            28 | 29 => self.resume(),
            30 | 31 => self.connect(number),
            _ => {}
        }
        if let Some(driver) = self.drivers.get_mut(&number)
            && self.random.below(4) > 0
        {
            driver.arrange(&self.demands, self.now);
        }
    }

    // ---- what happens ----

    /// A driver joins the session.
    fn join(&mut self) {
        self.driver_last += 1;
        self.drivers.insert(self.driver_last, Driver::new(self.kept, self.total.clone()));
        self.connect(self.driver_last);
    }

    /// A driver that has no connection to the session's process gets one.
    fn connect(&mut self, number: u64) {
        let (Some(driver), Some(process)) = (self.drivers.get_mut(&number), &mut self.process) else {
            return;
        };
        if !driver.is_connected() {
            let [here, there] = pair();
            driver.share.connected(here);
            process.add(there);
        }
    }

    /// The session's process takes its turn.
    fn turn(&mut self) {
        if let Some(process) = &mut self.process {
            assert!(!process.receive(self.now), "no driver stops the session");
            process.arrange(self.now);
        }
    }

    /// A process takes the place of one that was killed.
    fn resume(&mut self) {
        if self.process.is_none() {
            self.process = Some(Drivers::new(Division::new(self.total.clone(), true, self.now)));
            self.resumes_until = Some(self.now + RESUME_WINDOW);
        }
    }

    /// Time passes. The drivers do not take longer to come back than the new process waits for them.
    fn pass(&mut self, time: Duration) {
        if self.resumes_until.is_some_and(|until| until <= self.now + time) {
            self.resumes_until = None;
            self.resume();
            self.arrange_all();
            self.drivers
                .keys()
                .copied()
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|driver| self.connect(driver));
            self.arrange_all();
            if let Some(process) = &mut self.process {
                process.receive(self.now);
            }
        }
        self.now += time;
    }

    fn arrange_all(&mut self) {
        self.drivers.values_mut().for_each(|driver| driver.arrange(&self.demands, self.now));
    }

    /// Everything that was sent arrives.
    fn settle(&mut self) {
        self.resume();
        self.drivers.keys().copied().collect::<Vec<_>>().into_iter().for_each(|driver| self.connect(driver));
        for _ in 0..3 {
            self.arrange_all();
            self.turn();
        }
        self.arrange_all();
        self.check();
    }

    // ---- what must hold ----

    fn check(&self) {
        let mut used = Resources::default();
        for (number, driver) in &self.drivers {
            let its = driver.used();
            let leased = driver.leased();
            assert!(its.is_within(&leased), "{number} uses {its:?}, and has leases for {leased:?}");
            used.add(&its);
        }
        let all = self.all();
        assert!(used.is_within(&all), "the drivers use {used:?} of {all:?}");
        let mut leased = Resources::default();
        self.drivers.values().for_each(|driver| leased.add(&driver.leased()));
        assert!(leased.is_within(&all), "the drivers have leases for {leased:?} of {all:?}");
    }

    /// The resources of the session, with single GPUs.
    fn all(&self) -> Resources {
        let gpus: Vec<usize> = (0..self.total.gpu_count()).collect();
        self.total.on_gpus(&gpus).into_owned()
    }

    /// When everything has arrived, both sides know the same leases.
    fn check_leases(&mut self) {
        let mut known = (Vec::new(), Vec::new());
        for _ in 0..TURNS_MAX {
            let process = self.process.as_ref().expect("it runs");
            let mut here: Vec<u64> = self.drivers.values().flat_map(Driver::leases).collect();
            here.sort_unstable();
            known = (here, process.division.leases.keys().copied().collect());
            if known.0 == known.1 {
                return;
            }
            self.turn();
            self.arrange_all();
        }
        panic!("the drivers and the session's process know other leases: {known:?}");
    }

    // ---- the end ----

    fn end(mut self) {
        while self.drivers.len() < 2 {
            self.join();
        }
        self.settle();
        // The new process begins to grant.
        self.pass(RESUME_WINDOW);
        self.settle();
        self.check_leases();
        if self.demands.len() == 1 {
            self.end_fairly();
        }
        self.serve_all();
        self.give_all_back();
    }

    /// All drivers want all. Then each gets as much as the others.
    fn end_fairly(&mut self) {
        self.drivers.values_mut().for_each(Driver::end_actors);
        for _ in 0..ROUNDS_MAX {
            for driver in self.drivers.values_mut() {
                driver.want_all(self.now);
                driver.finish_some(&mut self.random, self.now);
            }
            self.settle();
            self.pass(Duration::from_millis(50));
            let counts = self.counts();
            let (fewest, most) = (counts.iter().min().copied(), counts.iter().max().copied());
            if most <= fewest.map(|fewest| fewest + 1) && self.is_all_leased() {
                return;
            }
        }
        let counts = self.counts();
        panic!("the drivers all want all, and have {counts:?} leases");
    }

    /// The number of leases of each driver.
    fn counts(&self) -> Vec<usize> {
        self.drivers.values().map(|driver| driver.leases().count()).collect()
    }

    fn is_all_leased(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.division.pool.free().num_cpus() < 1.0)
    }

    /// Calls end, and actors too: every driver is served.
    fn serve_all(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let waiting: Vec<_> = self.drivers.values().map(Driver::waits).collect();
            if !waiting.contains(&true) {
                return;
            }
            for driver in self.drivers.values_mut() {
                driver.finish_some(&mut self.random, self.now);
                driver.end_one_actor();
            }
            self.settle();
            self.pass(Duration::from_millis(50));
        }
        let waiting: Vec<_> = self.drivers.values().map(|driver| driver.waiting(&self.demands)).collect();
        panic!("these demands of the drivers are not served: {waiting:?}");
    }

    /// Nothing is wanted and nothing runs. A little later, no driver has a lease.
    fn give_all_back(&mut self) {
        for _ in 0..40 {
            for driver in self.drivers.values_mut() {
                driver.end_actors();
                driver.finish_all(self.now);
            }
            self.settle();
            self.pass(Duration::from_millis(100));
        }
        self.check_leases();
        for (number, driver) in &self.drivers {
            assert_eq!(driver.leases().count(), 0, "{number} keeps leases");
        }
        let process = self.process.as_ref().expect("it runs");
        assert_eq!(process.division.pool.free(), self.total, "not everything was given back");
    }

    fn any_driver(&mut self) -> Option<u64> {
        let drivers: Vec<u64> = self.drivers.keys().copied().collect();
        self.random.any(&drivers)
    }
}

/// The two ends of a connection.
fn pair() -> [Socket; 2] {
    let (here, there) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .expect("two sockets");
    [here, there].map(|end: OwnedFd| {
        let socket = Socket::from_descriptor(end);
        socket.set_nonblocking().expect("a socket");
        socket
    })
}
