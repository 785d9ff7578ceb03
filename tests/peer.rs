//! The other process of a test: a store's daemon, or a client that does what it is told.
//!
//! A client takes commands on its standard input, a line each, and answers each with a line, `ok …` or `error KIND`.
//! It ends with its input, so that none is left when a test dies.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mobula_client::{
    Client, ClientError, ConnectOptions, Handle, Layout, Object, ObjectId, ObjectWriter, Promise, Refusal,
};
use mobula_store::{Config, Server};
use mobula_tests::carriers::{CARRIERS, Carrier};
use mobula_tests::hostile::bystander;
use mobula_tests::{PATIENCE, Random, fill, is_content_of, kind_of, put_content, put_layout};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

fn main() {
    // A process that is meant to crash leaves no file behind.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["store", socket, capacity, clients_max, directory, bytes_max] if !directory.contains('=') => {
            let spill = Some((directory, number(bytes_max)));
            store(socket, number(capacity), number(clients_max), spill, &[]);
        }
        ["store", socket, capacity, clients_max, ref limits @ ..] => {
            store(socket, number(capacity), number(clients_max), None, limits);
        }
        ["client", socket] => serve(socket, ConnectOptions::new()),
        ["client", socket, "impatient"] => {
            serve(socket, ConnectOptions::new().resume_timeout(Duration::ZERO));
        }
        ["bystander", socket] => bystander::run(socket),
        _ => panic!(
            "usage: store SOCKET CAPACITY CLIENTS [SPILL_DIRECTORY SPILL_BYTES | LIMIT=VALUE…] \
             | client SOCKET [impatient] | bystander SOCKET"
        ),
    }
}

/// A daemon that lives until its standard input ends.
fn store(socket: &str, capacity_bytes: u64, clients_max: u64, spill: Option<(&str, u64)>, limits: &[&str]) {
    mobula_store::raise_descriptor_limit().expect("descriptors");
    let mut config = Config::new(socket, capacity_bytes)
        .orphan_grace(Duration::from_millis(20))
        .clients_max(clients_max as u32);
    if let Some((directory, bytes_max)) = spill {
        config = config.spill_directory(directory).spill_bytes_max(bytes_max);
    }
    for limit in limits {
        config = match limit.split_once('=').expect("a limit and its value") {
            ("client_bytes_max", value) => config.client_bytes_max(number(value)),
            ("user_bytes_max", value) => config.user_bytes_max(number(value)),
            (limit, _) => panic!("no such limit: {limit}"),
        }
    }
    let server = Server::bind(config).expect("the store starts");
    say("ok ready");
    let lifeline = nix::unistd::dup(std::io::stdin()).expect("a descriptor");
    server.run_while_open(lifeline).expect("the store runs");
}

fn serve(socket: &str, options: ConnectOptions) {
    keep_heap();
    let mut peer = match options.connect(socket) {
        Ok(client) => Peer::new(client, socket),
        Err(error) => return say(format_args!("error {}", kind_of(&error))),
    };
    say(format_args!("ok {}", std::process::id()));
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match peer.command(&words) {
            Ok(Some(answer)) => say(format_args!("ok {answer}")),
            Ok(None) => {}
            Err(error) => say(format_args!("error {}", kind_of(&error))),
        }
    }
}

/// Lets the heap grow in large steps and never shrink: a test counts the store's system calls, not malloc's.
fn keep_heap() {
    // SAFETY: called before there is a second thread; the values are sizes.
    unsafe {
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
    }
}

fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Wrong bytes are the end: the test sees what they were, and no more answers.
fn verify(object: &Object) {
    if !is_content_of(object, object.id()) {
        say(format_args!("error WrongBytes: object {} of {} bytes", object.id(), object.len()));
        std::process::exit(1);
    }
}

/// Behaves like a faulty owner for a while: it writes words into its own sealed objects, a few at a time. It soon
/// restores each word, so that a reader can read much of a value before it meets a wrong one. At the end all are as
/// they were. Returns how many words it wrote.
fn scribble(objects: &[Object], mut random: Random, duration: Duration) -> u64 {
    let (began, mut written) = (Instant::now(), 0);
    while began.elapsed() < duration {
        let mut wrong = Vec::new();
        for _ in 0..=random.below(3) {
            let object = &objects[random.below(objects.len() as u64) as usize];
            let word = |random: &mut Random| {
                let at = random.below(object.len() as u64 / 8) as usize;
                std::ptr::with_exposed_provenance_mut::<u64>(object.as_ptr().expose_provenance())
                    .wrapping_add(at)
            };
            let (target, source) = (word(&mut random), word(&mut random));
            // SAFETY: not sound, and meant so: the words are this process's own memory, which others read meanwhile.
            unsafe {
                let before = target.read_volatile();
                wrong.push((target, before));
                target.write_volatile(match random.below(6) {
                    0 => random.below(u64::MAX),
                    1 => before ^ 1 << random.below(64),
                    2 => source.read_volatile(),
                    3 => before.wrapping_add(1 << (random.below(8) * 8)),
                    4 => before | 0x8080_8080_8080_8080,
                    _ => [u64::MAX, 0, 1 << 31, 1 << 63][random.below(4) as usize],
                });
            }
            written += 1;
        }
        (0..random.below(2000)).for_each(|_| std::hint::spin_loop());
        // SAFETY: as above. The last first: a word may have been written twice.
        wrong.into_iter().rev().for_each(|(target, before)| unsafe { target.write_volatile(before) });
    }
    written
}

/// A client, and what it keeps.
struct Peer {
    client: Client,
    objects: HashMap<ObjectId, Object>,
    handles: HashMap<ObjectId, Handle>,
    writers: HashMap<ObjectId, ObjectWriter>,
    promises: HashMap<ObjectId, Promise>,
    /// Values of every kind.
    carriers: Vec<Object>,
    /// The state of the command `look`.
    looker: Looker,
    socket: String,
    /// Clients that do nothing.
    crowd: Vec<Client>,
    /// Descriptors that are there to be taken away.
    descriptors: Vec<File>,
}

#[derive(Default)]
struct Looker {
    random: Option<Random>,
    pinned: Vec<Object>,
    read: u64,
    gone: u64,
}

fn id(word: &str) -> ObjectId {
    word.parse().expect("an id")
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

impl Peer {
    fn new(client: Client, socket: &str) -> Self {
        Self {
            client,
            socket: socket.to_owned(),
            crowd: Vec::new(),
            descriptors: Vec::new(),
            objects: HashMap::new(),
            handles: HashMap::new(),
            writers: HashMap::new(),
            promises: HashMap::new(),
            carriers: Vec::new(),
            looker: Looker::default(),
        }
    }

    /// Does what a line says; `None` where nobody waits for an answer.
    fn command(&mut self, words: &[&str]) -> Result<Option<String>, ClientError> {
        let answer = match *words {
            // Objects: made, read, kept and let go.
            ["put", length] => self.keep(put_content(&self.client, number(length))?),
            ["put-with", length, ref references @ ..] => {
                let hold = |reference: &&str| self.client.hold(id(reference));
                let references = references.iter().map(hold).collect::<Result<_, _>>()?;
                let layout = Layout::new(number(length)).references(references);
                self.keep(put_layout(&self.client, layout)?)
            }
            ["get", object] => {
                let object = self.client.get(id(object))?;
                verify(&object);
                self.keep(object)
            }
            ["verify"] => {
                self.objects.values().for_each(verify);
                self.objects.len().to_string()
            }
            ["hold", object] => {
                let handle = self.client.hold(id(object))?;
                self.handles.insert(handle.id(), handle);
                String::new()
            }
            ["drop", object] => {
                self.objects.remove(&id(object));
                self.handles.remove(&id(object));
                String::new()
            }
            // Objects that are kept without their bytes.
            ["put-held", length, count] => {
                let mut ids = Vec::new();
                for _ in 0..number(count) {
                    let handle = put_content(&self.client, number(length))?.handle();
                    ids.push(handle.id().to_string());
                    self.handles.insert(handle.id(), handle);
                }
                ids.join(" ")
            }
            ["read", ref ids @ ..] => {
                for object in ids {
                    verify(&self.client.get(id(object))?);
                }
                String::new()
            }
            ["hold-all", ref ids @ ..] => {
                for object in ids {
                    let handle = self.client.hold(id(object))?;
                    self.handles.insert(handle.id(), handle);
                }
                String::new()
            }
            ["drop-all"] => {
                self.objects.clear();
                self.handles.clear();
                String::new()
            }
            ["begin", length] => {
                let layout = Layout::new(number(length));
                let mut writer = self.client.create(layout)?;
                let object = writer.id();
                fill(&mut writer, object);
                self.writers.insert(object, writer);
                object.to_string()
            }
            ["promise"] => {
                let promise = self.client.promise()?;
                let object = promise.handle().id();
                self.promises.insert(object, promise);
                object.to_string()
            }
            ["fulfil", object, length] => {
                let layout = Layout::new(number(length));
                let mut writer = self.client.create(layout)?;
                fill(&mut writer, id(object));
                let promise = self.promises.remove(&id(object)).expect("promised here");
                let handle = promise.handle().clone();
                promise.fulfil(writer);
                self.handles.insert(handle.id(), handle);
                String::new()
            }
            ["wait", object] => self.wait(id(object))?,
            ["publish", name, object] => {
                self.client.publish(name, id(object))?;
                String::new()
            }
            ["get-named", name] => {
                let object = self.client.get_named(name, PATIENCE)?;
                verify(&object);
                self.keep(object)
            }
            ["release"] => {
                self.client.release_unused();
                String::new()
            }
            ["exhaust-descriptors"] => {
                while let Ok(file) = File::open("/dev/null") {
                    self.descriptors.push(file);
                }
                self.descriptors.len().to_string()
            }
            ["relax"] => {
                self.descriptors.clear();
                String::new()
            }
            ["crowd", count] => {
                mobula_store::raise_descriptor_limit().expect("a limit");
                for _ in 0..number(count) {
                    self.crowd.push(Client::connect(&self.socket)?);
                }
                String::new()
            }
            ["stats"] => self.client.stats()?.totals.clients.to_string(),

            // Forbidden acts.
            ["scribble", object] => {
                let object = self.client.get(id(object))?;
                let address = object.as_ptr().expose_provenance();
                // SAFETY: not sound if it succeeds; the memory is mapped read-only, and the process dies here.
                unsafe { std::ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(0xff) };
                "written".to_owned()
            }
            ["put-carriers"] => {
                let put = |carrier: &Carrier| carrier.put(&self.client);
                self.carriers = CARRIERS.iter().map(put).collect::<Result<_, _>>()?;
                self.carriers.iter().map(|object| object.id().to_string()).collect::<Vec<_>>().join(" ")
            }
            ["scribble-carriers", seed, milliseconds] => {
                let duration = Duration::from_millis(number(milliseconds));
                scribble(&self.carriers, Random::from_seed(number(seed)), duration).to_string()
            }
            ["fork", theirs] => return self.fork(id(theirs)).map(Some),

            // Many operations.
            ["look-seed", seed] => {
                self.looker.random = Some(Random::from_seed(number(seed)));
                return Ok(None);
            }
            ["look", object] => {
                self.looker.look(&self.client, id(object))?;
                return Ok(None);
            }
            ["look-report"] => {
                self.looker.pinned.drain(..).for_each(|object| verify(&object));
                format!("{} {}", self.looker.read, self.looker.gone)
            }
            ["churn", seed] => return Err(churn(&self.client, Random::from_seed(number(seed)))),
            ["count-puts", mark, count] => {
                count_puts(&self.client, mark, number(count) as usize)?;
                String::new()
            }
            ["count-gets", mark, ids, from, to] => {
                let ids = self.client.get(id(ids))?;
                let (ids, _) = ids.as_chunks::<{ ObjectId::BYTES }>();
                let range = number(from) as usize..number(to) as usize;
                let ids: Vec<ObjectId> = ids[range].iter().map(|id| ObjectId::from_bytes(*id)).collect();
                count_gets(&self.client, mark, &ids)?;
                String::new()
            }
            _ => panic!("no such command: {words:?}"),
        };
        Ok(Some(answer))
    }

    fn keep(&mut self, object: Object) -> String {
        let id = object.id();
        self.objects.insert(id, object);
        id.to_string()
    }

    /// Waits for a promised object as a program does: watch, look once more, sleep.
    fn wait(&mut self, object: ObjectId) -> Result<String, ClientError> {
        let handle = self.client.hold(object)?;
        let _watch = handle.watch().unwrap();
        while !handle.is_ready()? {
            self.client.sleep(Some(PATIENCE), || !matches!(handle.is_ready(), Ok(false)));
        }
        let object = handle.object()?;
        verify(&object);
        Ok(self.keep(object))
    }

    /// Uses everything that this process has in a forked child, which ends in order; answers with what the child got,
    /// separated by `|`.
    fn fork(&mut self, theirs: ObjectId) -> Result<String, ClientError> {
        let theirs = self.client.get(theirs)?;
        let references = vec![theirs.handle()];
        let mine = put_layout(&self.client, Layout::new(1000).references(references))?;
        let layout = || Layout::new(1000);
        let (mut writer, second_writer) = (self.client.create(layout())?, self.client.create(layout())?);
        let promise = self.client.promise()?;
        let (reader, pipe) = nix::unistd::pipe().map_err(std::io::Error::from)?;
        // SAFETY: this thread holds no lock that the child uses; the client is what is being tested.
        match unsafe { fork() }.map_err(std::io::Error::from)? {
            ForkResult::Child => {
                std::panic::set_hook(Box::new(|_| {}));
                let client = self.client.clone();
                let mut said = vec![
                    outcome("get", || client.get(theirs.id()).map(drop)),
                    outcome("put", || client.put(b"bytes").map(drop)),
                    outcome("promise", || client.promise().map(drop)),
                    outcome("publish", || client.publish("name", mine.id())),
                    outcome("hold", || client.hold(mine.id()).map(drop)),
                    outcome("contains", || client.contains(mine.id()).map(drop)),
                    outcome("delete", || client.delete(mine.id())),
                    outcome("stats", || client.stats().map(drop)),
                    outcome("object of a handle", || mine.handle().object().map(drop)),
                    outcome("is_ready", || mine.handle().is_ready().map(drop)),
                    outcome("release_unused", || {
                        client.release_unused();
                        Ok(())
                    }),
                    outcome("deref of one's own", || {
                        let _ = mine[0];
                        Ok(())
                    }),
                    outcome("references of one's own", || {
                        let _ = mine.references();
                        Ok(())
                    }),
                    outcome("deref of a writer", || {
                        writer[0] = 1;
                        Ok(())
                    }),
                    outcome("seal", || {
                        drop(second_writer.seal());
                        Ok(())
                    }),
                ];
                said.push(outcome("deref of another's", || {
                    let _ = theirs[0];
                    Ok(())
                }));
                said.push(outcome("references of another's", || {
                    let _ = theirs.references();
                    Ok(())
                }));
                // A child may connect for itself.
                said.push(outcome("a client of its own", || {
                    let own = Client::connect(&self.socket)?;
                    let object = own.get(theirs.id())?;
                    assert!(is_content_of(&object, object.id()));
                    own.put(b"bytes").map(drop)
                }));
                drop((mine.clone(), theirs.clone(), mine.handle(), theirs.handle()));
                drop((mine, theirs, writer, promise, client));
                self.objects.clear();
                self.handles.clear();
                self.writers.clear();
                self.promises.clear();
                let _ = File::from(pipe).write_all(said.join("|").as_bytes());
                // SAFETY: ends the child without the parent's cleanup.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                drop(pipe);
                let mut said = String::new();
                File::from(reader).read_to_string(&mut said)?;
                let status = waitpid(child, None).map_err(std::io::Error::from)?;
                if !matches!(status, WaitStatus::Exited(_, 0)) {
                    said.push_str(&format!("|the child ended with {status:?}"));
                }
                // The parent is unharmed: it can finish its draft and its promise.
                let object = writer.id();
                fill(&mut writer, object);
                let promised = promise.handle().clone();
                promise.fulfil(second_writer);
                _ = promised.object()?;
                let finished = writer.seal();
                verify(&finished);
                self.keep(finished);
                self.keep(mine);
                self.keep(theirs);
                Ok(said)
            }
        }
    }
}

/// The outcome of an operation: `done`, an error or a panic.
fn outcome(name: &str, operation: impl FnOnce() -> Result<(), ClientError>) -> String {
    let result = match catch_unwind(AssertUnwindSafe(operation)) {
        Ok(Ok(())) => "done".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("panic: {}", panic.downcast_ref::<String>().map_or("?", String::as_str)),
    };
    format!("{name}: {result}")
}

impl Looker {
    /// Reads an object that may be gone by now, and keeps some of those that are there.
    fn look(&mut self, client: &Client, object: ObjectId) -> Result<(), ClientError> {
        let random = self.random.as_mut().expect("a seed first");
        match client.get(object) {
            Ok(object) => {
                verify(&object);
                self.read += 1;
                self.pinned.push(object);
            }
            Err(ClientError::NoSuchObject { .. } | ClientError::Deleted { .. }) => self.gone += 1,
            Err(error) => return Err(error),
        }
        while self.pinned.len() as u64 > random.below(32) {
            let victim = random.below(self.pinned.len() as u64) as usize;
            verify(&self.pinned.swap_remove(victim));
        }
        Ok(())
    }
}

/// Random operations on objects under names that all churning processes share, until the process is killed or
/// something fails. Says a line now and then.
fn churn(client: &Client, mut random: Random) -> ClientError {
    let (mut kept, mut writers, mut promises) = (Vec::new(), Vec::new(), Vec::new());
    for step in 1.. {
        if let Err(error) = churn_step(client, &mut random, &mut kept, &mut writers, &mut promises) {
            return error;
        }
        if step % 20 == 0 {
            say("ok step");
        }
    }
    unreachable!("steps have no end")
}

fn churn_step(
    client: &Client,
    random: &mut Random,
    kept: &mut Vec<Object>,
    writers: &mut Vec<ObjectWriter>,
    promises: &mut Vec<Promise>,
) -> Result<(), ClientError> {
    let length_max = [64, 1000, 20_000, 200_000][random.below(4) as usize];
    let length = random.below(length_max);
    let name = format!("name-{}", random.below(32));
    match random.below(10) {
        0..=2 => kept.push(put_content(client, length)?),
        3 => {
            let references = kept.iter().take(3).map(Object::handle).collect();
            kept.push(put_layout(client, Layout::new(length).references(references))?);
        }
        4 | 5 => {
            if let Some(object) = kept.last() {
                match client.publish(&name, object.id()) {
                    Ok(()) => {}
                    Err(ClientError::Refused(Refusal::NameTaken { .. })) => match client.unpublish(&name) {
                        Ok(()) | Err(ClientError::Refused(Refusal::NoSuchName {})) => {}
                        Err(error) => return Err(error),
                    },
                    // It belonged to a dead client, and only this process kept it.
                    Err(error) => return Err(error),
                }
            }
        }
        6 | 7 => {
            if let Some(object) = client.lookup(&name)? {
                match client.get(object) {
                    Ok(object) => {
                        verify(&object);
                        for reference in object.references() {
                            verify(&client.get(reference)?);
                        }
                        kept.push(object);
                    }
                    // The name was taken away in between.
                    Err(ClientError::NoSuchObject { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        8 => {
            writers.push(client.create(Layout::new(length))?);
            writers.truncate(3);
        }
        _ => {
            promises.push(client.promise()?);
            promises.truncate(3);
        }
    }
    while kept.len() > 12 {
        verify(&kept.swap_remove(random.below(12) as usize));
    }
    Ok(())
}

/// Puts and drops objects between two marks in the trace of this process's system calls.
fn count_puts(client: &Client, mark: &str, count: usize) -> Result<(), ClientError> {
    const BATCH: usize = 1000;
    let anchor = client.put(&[1; 100])?;
    let mut objects = Vec::with_capacity(BATCH);
    let bytes = [7; 100];
    let mut round = |count: usize| {
        for _ in 0..count / BATCH {
            for _ in 0..BATCH {
                objects.push(client.put(&bytes)?);
            }
            objects.clear();
        }
        Ok::<_, ClientError>(())
    };
    // Memory is leased, and the bookkeeping has grown to its size.
    round(count)?;
    trace_mark(mark, "begin");
    round(count)?;
    trace_mark(mark, "end");
    drop(anchor);
    Ok(())
}

/// Gets and drops objects between two marks.
fn count_gets(client: &Client, mark: &str, ids: &[ObjectId]) -> Result<(), ClientError> {
    let mut objects = Vec::with_capacity(ids.len());
    trace_mark(mark, "begin");
    for id in ids {
        objects.push(client.get(*id)?);
    }
    let sum: u64 = objects.iter().map(|object: &Object| u64::from(object[0])).sum();
    objects.clear();
    trace_mark(mark, "end");
    std::hint::black_box(sum);
    Ok(())
}

/// A system call that does nothing but show in a trace.
fn trace_mark(name: &str, what: &str) {
    let text = format!("mark {name} {what}");
    // SAFETY: a write from a valid buffer, to a descriptor that does not exist.
    unsafe { libc::write(-1, text.as_ptr().cast(), text.len()) };
}
