//! A bystander must not notice that others are hostile. It is a process of its own, so that the times are those of the
//! store, and not of resources that hostile and honest clients share within one process.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mobula_client::Client;

use crate::{Process, eventually, is_content_of, put_content};

/// Rounds that a median is taken of.
const ROUNDS: usize = 300;

/// Medians of one stretch of time, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// A request to the daemon and its answer.
    pub round_trip: f64,
    /// A put by one client, and a get by the other.
    pub object: f64,
}

// ---- the test's end ----

/// A process with two honest clients that put, get and ask all the time, each round timed.
pub struct Bystander {
    process: Process,
}

impl Bystander {
    /// Starts one. `program` is `mobula-test-peer`.
    pub fn start(program: &str, socket: &Path) -> Self {
        let mut command = Command::new(program);
        command.arg("bystander").arg(socket);
        let mut process = Process::start(command);
        assert_eq!(process.answer().as_deref(), Ok("ready"), "the bystander connects");
        Self { process }
    }

    /// Times the rounds from now on, and those alone.
    pub fn time(&mut self) {
        self.process.ok("time");
    }

    /// Whether there are enough rounds for a median.
    pub fn has_enough(&mut self) -> bool {
        self.process.ok("enough") == "true"
    }

    /// Waits for enough rounds; their medians.
    pub fn timed(&mut self) -> Latency {
        eventually("the bystander has been timed", || self.has_enough());
        self.latency()
    }

    /// Ends the timing; its medians.
    pub fn latency(&mut self) -> Latency {
        let answer = self.process.ok("latency");
        let medians = answer.split_once(' ').and_then(|(round_trip, object)| {
            Some(Latency { round_trip: round_trip.parse().ok()?, object: object.parse().ok()? })
        });
        medians.expect("two numbers")
    }

    /// Returns the bystander's failure. Any other question returns it too, and fails the test.
    ///
    /// # Errors
    /// That failure.
    pub fn is_well(&mut self) -> Result<(), String> {
        self.process.ask("enough").map(drop)
    }
}

// ---- the process ----

/// The observations so far.
#[derive(Debug, Default)]
struct Seen {
    /// Whether rounds are timed.
    timed: bool,
    round_trips: Vec<Duration>,
    objects: Vec<Duration>,
    error: Option<String>,
}

impl Seen {
    fn answer(&mut self, command: &str) -> Result<String, String> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        match command {
            "time" => {
                *self = Self { timed: true, ..Self::default() };
                Ok(String::new())
            }
            "enough" => Ok((self.objects.len() >= ROUNDS).to_string()),
            "latency" => {
                self.timed = false;
                Ok(format!("{} {}", median_us(&mut self.round_trips), median_us(&mut self.objects)))
            }
            _ => panic!("no such command: {command}"),
        }
    }
}

fn median_us(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// The bystander itself: lives until its commands end.
pub fn run(socket: &str) {
    let seen = Arc::<Mutex<Seen>>::default();
    let owner = Client::connect(socket).expect("the store takes a client");
    let reader = Client::connect(socket).expect("the store takes a client");
    std::thread::spawn({
        let seen = seen.clone();
        move || {
            let Err(error) = bystand(&owner, &reader, &seen);
            lock(&seen).error = Some(error);
        }
    });
    println!("ok ready");
    for command in std::io::stdin().lines().map_while(Result::ok) {
        match lock(&seen).answer(&command) {
            Ok(answer) => println!("ok {answer}"),
            Err(error) => println!("error {error}"),
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bystand(owner: &Client, reader: &Client, seen: &Mutex<Seen>) -> Result<std::convert::Infallible, String> {
    let kept = put_content(owner, 5000).map_err(|error| error.to_string())?;
    let read = reader.get(kept.id()).map_err(|error| error.to_string())?;
    loop {
        let began = Instant::now();
        let put = put_content(owner, 1000).map_err(|error| error.to_string())?;
        let got = reader.get(put.id()).map_err(|error| error.to_string())?;
        let object = began.elapsed();
        let right = [&read, &kept, &got].iter().all(|object| is_content_of(object, object.id()));
        let asked = Instant::now();
        let nobody = reader.lookup("nobody").map_err(|error| error.to_string())?;
        let round_trip = asked.elapsed();
        if !right || nobody.is_some() {
            return Err("wrong bytes, or a name that nobody gave".to_owned());
        }
        let mut seen = lock(seen);
        if seen.timed {
            seen.objects.push(object);
            seen.round_trips.push(round_trip);
        }
        drop(seen);
        // Leaves the processors to those who are being looked at.
        std::thread::sleep(Duration::from_micros(200));
    }
}
