//! The processes in which calls fail: a store, or a client that does what it is told and says what became of it.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

use mobula_client::{
    Channel, Client, ClientError, ConnectOptions, Event, Events, Handle, Layout, Object, ObjectId, Promise,
};
use mobula_store::{Config, Server};
use mobula_tests::{fill, is_content_of, kind_of, put_content, put_layout};

/// How long a client waits for anything: a failed call shows as an error well before.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Descriptors, and mappings of the store's memory, that a process has.
pub(crate) fn count_of(process: &str) -> (usize, usize) {
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    (descriptors, maps.matches("memfd:mobula").count())
}

/// A daemon that lives until its standard input ends; a failure to start is said in one line.
pub(crate) fn store(socket: &str, capacity: &str) {
    let config = Config::new(socket, capacity.parse().expect("a number"))
        .orphan_grace(Duration::ZERO)
        .clients_max(8)
        .table_entries_initial(64)
        .ring_bytes(4096);
    let served = Server::bind(config).map_err(|error| error.to_string()).and_then(|server| {
        say("ok ready");
        let lifeline = nix::unistd::dup(std::io::stdin()).expect("a descriptor");
        server.run_while_open(lifeline).map_err(|error| error.to_string())
    });
    if let Err(error) = served {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

/// A client that takes commands on its standard input and answers each with a line.
pub(crate) fn client(socket: &str) {
    let mut part = Part { socket: socket.to_owned(), ..Part::default() };
    say(format_args!("ok {}", std::process::id()));
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match part.command(&words) {
            Ok(answer) => say(format_args!("ok {answer}")),
            Err(error) => say(format_args!("error {}", kind_of(&error))),
        }
    }
}

fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

#[derive(Default)]
struct Part {
    socket: String,
    client: Option<Client>,
    events: Option<Events>,
    objects: HashMap<ObjectId, Object>,
    handles: HashMap<ObjectId, Handle>,
    promises: HashMap<ObjectId, Promise>,
    channel: Option<Channel>,
}

fn id(word: &str) -> ObjectId {
    word.parse().expect("an id")
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

fn verify(object: &Object) {
    assert!(is_content_of(object, object.id()), "wrong bytes in {}", object.id());
}

fn timeout(operation: &'static str) -> ClientError {
    ClientError::Timeout { operation, waited: PATIENCE }
}

impl Part {
    fn command(&mut self, words: &[&str]) -> Result<String, ClientError> {
        if let ["connect"] = words {
            let options =
                ConnectOptions::new().label("part").answer_timeout(PATIENCE).lease_timeout(PATIENCE / 4);
            let client = options.connect(&self.socket)?;
            self.events = Some(client.events());
            self.client = Some(client);
            return Ok(String::new());
        }
        if let ["reset"] = words {
            let socket = std::mem::take(&mut self.socket);
            *self = Self { socket, ..Self::default() };
            return Ok(String::new());
        }
        if let ["count"] = words {
            let (descriptors, mappings) = count_of("self");
            return Ok(format!("{descriptors} {mappings}"));
        }
        let client = self.client.clone().ok_or(ClientError::StoreLost)?;
        let answer = match *words {
            ["put", length] => self.keep(put_content(&client, number(length))?),
            ["put-many", count, length] => {
                for _ in 0..number(count) {
                    let object = put_content(&client, number(length))?;
                    self.keep(object);
                }
                String::new()
            }
            ["put-with", length, reference] => {
                let references = vec![client.hold(id(reference))?];
                let object = put_layout(&client, Layout::new(number(length)).references(references))?;
                self.keep(object)
            }
            ["get", object] => {
                let object = client.get(id(object))?;
                verify(&object);
                self.keep(object)
            }
            ["get-inner", object] => {
                let outer = client.get(id(object))?;
                let inner = client.get(outer.references()[0])?;
                verify(&inner);
                self.keep(inner)
            }
            ["hold", object] => {
                let handle = client.hold(id(object))?;
                self.handles.insert(handle.id(), handle);
                String::new()
            }
            ["drop", object] => {
                self.objects.remove(&id(object));
                self.handles.remove(&id(object));
                String::new()
            }
            ["verify"] => {
                self.objects.values().for_each(verify);
                String::new()
            }
            ["publish", name, object] => {
                client.publish(name, id(object))?;
                String::new()
            }
            ["get-named", name] => {
                let object = client.get_named(name, PATIENCE)?;
                verify(&object);
                self.keep(object)
            }
            ["unpublish", name] => {
                client.unpublish(name)?;
                String::new()
            }
            ["promise"] => {
                let promise = client.promise()?;
                let object = promise.handle().id();
                self.promises.insert(object, promise);
                object.to_string()
            }
            ["fulfil", object, length] => {
                let layout = Layout::new(number(length));
                let mut writer = client.create(layout)?;
                fill(&mut writer, id(object));
                let promise = self.promises.remove(&id(object)).expect("promised here");
                self.handles.insert(id(object), promise.handle().clone());
                promise.fulfil(writer);
                String::new()
            }
            ["wait", object] => self.wait(&client, id(object))?,
            ["open", object] => {
                self.channel = Some(client.connect_to(id(object).owner())?);
                String::new()
            }
            ["accept"] => self.accept(&client)?,
            ["send"] => {
                let channel = self.channel.as_mut().ok_or_else(|| timeout("open a channel"))?;
                channel.sender.send(b"a record").map_err(|_| timeout("send"))?;
                String::new()
            }
            ["receive"] => self.receive(&client)?,
            ["close"] => {
                self.channel = None;
                String::new()
            }
            ["stats"] => client.stats().map(|_| String::new())?,
            ["list"] => client.list().map(|_| String::new())?,
            ["names"] => client.names().map(|_| String::new())?,
            _ => panic!("no such command: {words:?}"),
        };
        Ok(answer)
    }

    fn keep(&mut self, object: Object) -> String {
        let id = object.id();
        self.objects.insert(id, object);
        id.to_string()
    }

    fn wait(&mut self, client: &Client, object: ObjectId) -> Result<String, ClientError> {
        let handle = client.hold(object)?;
        let give_up = Instant::now() + PATIENCE;
        let watch = handle.watch().unwrap();
        while !handle.is_ready()? {
            if Instant::now() > give_up {
                return Err(timeout("wait"));
            }
            client.sleep(Some(PATIENCE), || !matches!(handle.is_ready(), Ok(false)));
        }
        drop(watch);
        let object = handle.object()?;
        verify(&object);
        Ok(self.keep(object))
    }

    fn accept(&mut self, client: &Client) -> Result<String, ClientError> {
        let events = self.events.as_ref().expect("connected");
        let give_up = Instant::now() + PATIENCE;
        loop {
            match events.next_within(give_up.saturating_duration_since(Instant::now())) {
                Some(Event::ChannelOpened(incoming)) => {
                    self.channel = Some(client.accept(incoming)?);
                    return Ok(String::new());
                }
                Some(Event::StoreLost | Event::ChannelClosed(_)) => return Err(ClientError::StoreLost),
                Some(_) => {}
                None => return Err(timeout("accept")),
            }
        }
    }

    /// A record, or the news that none will come.
    fn receive(&mut self, client: &Client) -> Result<String, ClientError> {
        let events = self.events.as_ref().expect("connected");
        let channel = self.channel.as_mut().ok_or_else(|| timeout("open a channel"))?;
        let (give_up, mut record) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            if channel.receiver.next(&mut record).map_err(|_| timeout("receive"))? {
                assert_eq!(record, b"a record");
                channel.receiver.done();
                return Ok(String::new());
            }
            match events.try_next() {
                Some(Event::ChannelClosed(_) | Event::StoreLost) => return Err(ClientError::StoreLost),
                _ if Instant::now() > give_up => return Err(timeout("receive")),
                _ => client.sleep(Some(Duration::from_millis(100)), || !channel.receiver.is_empty()),
            }
        }
    }
}
