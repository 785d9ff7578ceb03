//! `mobula status`: sessions at a glance (resources, drivers, workers, queues, store, and unusual things), and the
//! clients of a store, their memory, and the objects that have names.
//!
//! The command connects as a client like any other, asks, and leaves. It does not count itself in its output. The
//! numbers come from several round trips, so they are not of one moment.
//!
//! # JSON
//!
//! With `--json` the output is one object. Sizes are numbers of bytes. Keys may be added; the keys listed here stay.
//!
//! With `--socket` or `--session`, a store:
//!
//! ```json
//! {
//!   "socket": "/run/user/1000/mobula/session-4711-0/store.sock",
//!   "session": {
//!     "resources": [{"name": "CPU", "total": 2.0, "used": 1.0, "free": 1.0}],
//!     "drivers": [{"pid": 4711, "command": "train", "since": 0.0, "waiting_calls": 0, "workers": 0, "actors": 0,
//!                  "waits": [["4711.12", 0.5]], "leased_bytes": 0, "objects": 0, "object_bytes": 0}],
//!     "workers": {"total": 0, "starting": 0, "idle": 0, "leased": 0, "blocked": 0, "actors": 0, "ending": 0},
//!     "actors": {"alive": 0},
//!     "queues": [{"kind": "resources", "waits_for": "2 CPU", "calls": 3, "pid": 4711, "waited_s": 40.0}],
//!     "store": {"capacity_bytes": 0, "used_bytes": 0, "free_bytes": 0, "objects": 0, "object_bytes": 0,
//!               "spilled_objects": 0, "spilled_bytes": 0, "spill_file_bytes": 0, "waiting": 0, "waiting_bytes": 0,
//!               "restoring": 0},
//!     "unusual": [{"kind": "starved", "text": "3 calls …", "command": "mobula list workers"}]
//!   },
//!   "totals": {
//!     "capacity_bytes": 0, "leased_bytes": 0, "orphaned_bytes": 0, "retired_bytes": 0, "free_bytes": 0,
//!     "clients": 0, "dead_clients": 0, "segments": 0, "names": 0, "channels": 0, "spill_bytes": 0,
//!     "spill_files": 0
//!   },
//!   "clients": [{
//!     "id": "3@00005f0c1d2e", "pid": 4711, "label": "driver 4711", "dead": false, "leased_bytes": 0,
//!     "segments": 0, "objects": 0, "object_bytes": 0, "pins": 0, "spilled_objects": 0, "spilled_bytes": 0
//!   }],
//!   "names": [{"name": "scores", "name_hex": "73636f726573", "object": "0003-…", "bytes": 0, "holders": 0}]
//! }
//! ```
//!
//! `session` is `null` for a store that no driver uses. `name` is `null` where a name is not UTF-8; `bytes` and
//! `holders` are `null` if the object ended before it was read. A `dead` client has left objects that others use, and
//! the store keeps them. [`Overview`] explains the keys of `session`.
//!
//! Without them, all sessions: `{"sessions": [{"socket": "…", "session": {…}, "totals": {…}}]}`. A session whose
//! store does not answer correctly has `null` as its `totals`, and an `error` with the reason.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use mobula_client::{ClientError, ClientInfo, Totals};
use mobula_protocol::size::ByteSize;
use mobula_runtime::state::{Observer, Overview, QueueState};
use mobula_runtime::words::{amount, count, seconds, with_sizes};
use serde::Serialize;

use crate::session::{NO_SESSION, explain, only_session, print};
use crate::table::{Side, columns, printable, shortened, wrapped};

/// Shows the running sessions: resources, drivers, workers, waiting calls, the store, and unusual things; of one
/// session also the clients of the store with their memory, and the named objects.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
JSON: one object; sizes are numbers of bytes.
  Of one session:   {socket, session, totals, clients: [client], names: [name]}
  Of all:           {sessions: [{socket, session, totals}]}; for a store that does not answer:
                    {socket, session: null, totals: null, error}
  session:          {resources, drivers, workers, actors, queues, store, unusual}; null where no driver uses the store
  totals:           {capacity_bytes, leased_bytes, orphaned_bytes, retired_bytes, free_bytes,
                     clients, dead_clients, segments, names, channels, spill_bytes, spill_files}
  client:           {id, pid, label, dead, leased_bytes, segments, objects, object_bytes, pins,
                     spilled_objects, spilled_bytes}
  name:             {name, name_hex, object, bytes, holders}; null where a name is no UTF-8,
                    or an object gone")]
pub(crate) struct StatusCommand {
    /// The store's socket. Without it: all sessions of this user's that are running.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The session whose directory has this text in its name, such as the pid of the program that started it.
    #[arg(long, value_name = "NAME", conflicts_with = "socket")]
    session: Option<String>,
    /// Print one JSON object instead of text; `--help` has its keys.
    #[arg(long)]
    json: bool,
}

impl StatusCommand {
    /// Asks and prints.
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let named = self.session.map(|name| only_session(Some(&name))).transpose()?;
        let text = match (self.socket.or(named), self.json) {
            (Some(socket), false) => StoreStatus::of(&socket)?.to_text(),
            (Some(socket), true) => to_json(&StoreStatus::of(&socket)?)?,
            (None, false) => SessionList::of(mobula_runtime::sessions()).to_text(),
            (None, true) => to_json(&SessionList::of(mobula_runtime::sessions()))?,
        };
        print(&text)
    }
}

/// The most queues in the text.
const QUEUES_SHOWN: usize = 10;
/// Characters before the text of a line: blanks and a label.
const LABEL_WIDTH: usize = 12;

/// One store with all that is in it.
#[derive(Debug, Serialize)]
struct StoreStatus {
    socket: String,
    /// `None`: no driver uses the store.
    session: Option<Overview>,
    totals: Totals,
    clients: Vec<ClientInfo>,
    names: Vec<NameStatus>,
}

/// The running sessions.
#[derive(Debug, Serialize)]
struct SessionList {
    sessions: Vec<SessionStatus>,
}

#[derive(Debug, Serialize)]
struct SessionStatus {
    socket: String,
    session: Option<Overview>,
    /// `None` if the store does not answer as it should.
    totals: Option<Totals>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct NameStatus {
    name: Option<String>,
    name_hex: String,
    object: String,
    bytes: Option<u64>,
    holders: Option<u32>,
}

impl StoreStatus {
    fn of(socket: &Path) -> Result<Self, Box<dyn Error>> {
        let observer = Observer::connect(socket).map_err(|error| explain(socket, error))?;
        let snapshot = observer.look()?;
        let (client, stats) = (observer.client(), snapshot.store());
        let names = client.names()?;
        // Walks through all objects of all clients, so only when there is something to be found.
        let named = if names.is_empty() { Vec::new() } else { client.list()? };
        let named: HashMap<_, _> =
            named.into_iter().filter(|info| info.named).map(|info| (info.object, info)).collect();
        let names = names.into_iter().map(|info| NameStatus {
            name_hex: info.name.iter().map(|byte| format!("{byte:02x}")).collect(),
            name: String::from_utf8(info.name).ok(),
            object: info.object.to_string(),
            bytes: named.get(&info.object).map(|object| object.bytes),
            holders: named.get(&info.object).map(|object| object.holders),
        });
        Ok(Self {
            socket: socket.to_string_lossy().into_owned(),
            session: some_session(snapshot.overview()),
            totals: stats.totals.clone(),
            clients: stats.clients.clone(),
            names: names.collect(),
        })
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        if let Some(session) = &self.session {
            text += &format!("session at {}\n{}\n", printable(&self.socket), session_text(session));
        }
        let _ = writeln!(text, "store at {}", printable(&self.socket));
        text += &totals_text(&self.totals);
        if !self.clients.is_empty() {
            let rows: Vec<_> = self.clients.iter().map(client_row).collect();
            text += "\nclients\n";
            text += &columns(CLIENT_HEAD, &rows);
        }
        if !self.names.is_empty() {
            let rows: Vec<_> = self.names.iter().map(NameStatus::row).collect();
            text += "\nnamed objects\n";
            text += &columns(NameStatus::HEAD, &rows);
        }
        text
    }
}

impl SessionList {
    /// Asks each store. One that ends meanwhile is no session any more; one that does not answer hides no other.
    fn of(sockets: Vec<PathBuf>) -> Self {
        let mut sessions = Vec::new();
        for path in sockets {
            let socket = path.to_string_lossy().into_owned();
            match Observer::connect(&path).and_then(|observer| observer.look()) {
                Ok(snapshot) => {
                    let totals = Some(snapshot.store().totals.clone());
                    let session = some_session(snapshot.overview());
                    sessions.push(SessionStatus { socket, session, totals, error: None });
                }
                Err(error) if has_ended(&error) => {}
                Err(error) => {
                    let error = Some(explain(&path, error).to_string());
                    sessions.push(SessionStatus { socket, session: None, totals: None, error });
                }
            }
        }
        Self { sessions }
    }

    fn to_text(&self) -> String {
        if self.sessions.is_empty() {
            return format!("{NO_SESSION}\n");
        }
        self.sessions.iter().map(SessionStatus::to_text).collect::<Vec<_>>().join("\n")
    }
}

impl SessionStatus {
    fn to_text(&self) -> String {
        let mut text = format!("session at {}\n", printable(&self.socket));
        match (&self.session, &self.totals) {
            (Some(session), _) => text += &session_text(session),
            (None, Some(totals)) => text += &totals_text(totals),
            (None, None) => {}
        }
        if let Some(error) = &self.error {
            let _ = writeln!(text, "  {}", printable(error));
        }
        text
    }
}

/// The overview of a session; `None` if no driver uses the store.
fn some_session(overview: Overview) -> Option<Overview> {
    (!overview.drivers.is_empty() || !overview.resources.is_empty()).then_some(overview)
}

/// A session at a glance, for people.
fn session_text(session: &Overview) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    for driver in &session.drivers {
        let command = shortened(&driver.command, 60);
        let age = driver.since.map_or_else(String::new, |since| {
            format!(", for {}", seconds((now.as_secs_f64() - since).max(0.0)))
        });
        let waits = driver.waits.first().map_or_else(String::new, |(what, time)| {
            format!(", has waited for {} for {}", with_sizes(what), seconds(*time))
        });
        let text = format!("{} {command}{age}{waits}", driver.pid);
        lines.push(("drivers", text));
    }
    let workers = &session.workers;
    let kinds = [
        (workers.leased, "leased"),
        (workers.blocked, "blocked"),
        (workers.idle, "idle"),
        (workers.actors, "actor"),
        (workers.starting, "starting"),
        (workers.ending, "ending"),
    ];
    let some = |kinds: &[(u64, &str)]| {
        let some = kinds.iter().filter(|(count, _)| *count > 0);
        let text = |(number, kind): &(u64, &str)| match *kind {
            "actor" => count(*number, kind),
            kind => format!("{number} {kind}"),
        };
        some.map(text).collect::<Vec<_>>().join(", ")
    };
    lines.push(("workers", format!("{} ({})", workers.total, some(&kinds)).replace(" ()", "")));
    if !session.actors.is_empty() {
        let actors: Vec<_> = session.actors.iter().map(|(state, count)| (*count, state.as_str())).collect();
        lines.push(("actors", some(&actors)));
    }
    for resource in &session.resources {
        let name = printable(&resource.name);
        let (used, total) = (amount(&name, resource.used), amount(&name, resource.total));
        // The name once, behind the total.
        let used = used.strip_suffix(&name).unwrap_or(&used).trim_end();
        lines.push(("resources", format!("{used} of {total} used")));
    }
    lines.extend(session.queues.iter().take(QUEUES_SHOWN).map(|queue| ("queues", queue_text(queue))));
    if session.queues.len() > QUEUES_SHOWN {
        lines.push(("queues", format!("{} more: --json shows them", session.queues.len() - QUEUES_SHOWN)));
    }
    let store = &session.store;
    let mut text = format!(
        "{} of {} used, {} of {}",
        ByteSize(store.used_bytes),
        ByteSize(store.capacity_bytes),
        count(store.objects, "object"),
        ByteSize(store.object_bytes)
    );
    if store.spilled_objects > 0 {
        let _ =
            write!(text, ", {} of them spilled ({})", store.spilled_objects, ByteSize(store.spilled_bytes));
    }
    if store.waiting > 0 {
        let threads = if store.waiting == 1 { "thread waits" } else { "threads wait" };
        let _ = write!(text, "; {} {threads} for {}", store.waiting, ByteSize(store.waiting_bytes));
    }
    lines.push(("store", text));
    for unusual in &session.unusual {
        let command = unusual.command.as_ref().map_or_else(String::new, |command| format!(": `{command}`"));
        lines.push(("unusual", printable(&unusual.text) + &command));
    }
    let mut text = String::new();
    let mut before = "";
    for (name, line) in lines {
        let shown = if name == before { "" } else { name };
        text += &wrapped(&format!("  {shown:<10}{line}"), LABEL_WIDTH);
        text.push('\n');
        before = name;
    }
    text
}

fn queue_text(queue: &QueueState) -> String {
    let verb = if queue.calls == 1 { "waits" } else { "wait" };
    let time = queue.waited_s.map_or_else(String::new, |time| format!(", for {}", seconds(time)));
    let what = with_sizes(&printable(&queue.waits_for));
    match queue.kind {
        "process" => format!("an actor waits for a process and {what}{time}"),
        _ => format!("{} {verb} in process {} for {what}{time}", count(queue.calls, "call"), queue.pid),
    }
}

fn totals_text(totals: &Totals) -> String {
    let mut text = String::new();
    for (name, bytes, remark) in [
        ("capacity", totals.capacity_bytes, String::new()),
        ("leased", totals.leased_bytes, format!("to {}", count(totals.clients.into(), "client"))),
        (
            "orphaned",
            totals.orphaned_bytes,
            format!("from {}", count(totals.dead_clients.into(), "dead client")),
        ),
        ("retired", totals.retired_bytes, "given back, but still mapped".to_owned()),
        ("free", totals.free_bytes, String::new()),
        ("spilled", totals.spill_bytes, format!("on disk, in {}", count(totals.spill_files.into(), "file"))),
    ] {
        let line = format!("  {name:<10}{:<11}{remark}", ByteSize(bytes).to_string());
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for (name, number) in [
        ("segments", u64::from(totals.segments)),
        ("names", totals.names),
        ("channels", u64::from(totals.channels)),
    ] {
        let _ = writeln!(text, "  {name:<10}{number}");
    }
    text
}

const CLIENT_HEAD: [(&str, Side); 9] = [
    ("ID", Side::Left),
    ("PID", Side::Right),
    ("LABEL", Side::Left),
    ("LEASED", Side::Right),
    ("SEGMENTS", Side::Right),
    ("OBJECTS", Side::Right),
    ("BYTES", Side::Right),
    ("PINS", Side::Right),
    ("SPILLED", Side::Right),
];

fn client_row(client: &ClientInfo) -> [String; 9] {
    let dead = if client.dead { " (dead)" } else { "" };
    [
        client.owner.to_string(),
        client.pid.to_string(),
        printable(&client.label) + dead,
        ByteSize(client.leased_bytes).to_string(),
        client.segments.to_string(),
        client.objects.to_string(),
        ByteSize(client.object_bytes).to_string(),
        client.pins.to_string(),
        ByteSize(client.spilled_bytes).to_string(),
    ]
}

impl NameStatus {
    const HEAD: [(&str, Side); 4] =
        [("NAME", Side::Left), ("OBJECT", Side::Left), ("BYTES", Side::Right), ("HOLDERS", Side::Right)];

    fn row(&self) -> [String; 4] {
        let name = self.name.as_deref().map_or_else(|| format!("0x{}", self.name_hex), printable);
        let unknown = || "-".to_owned();
        [
            name,
            self.object.clone(),
            self.bytes.map_or_else(unknown, |bytes| ByteSize(bytes).to_string()),
            self.holders.map_or_else(unknown, |holders| holders.to_string()),
        ]
    }
}

/// Whether an error says that there is no store any more.
fn has_ended(error: &ClientError) -> bool {
    match error {
        ClientError::StoreLost => true,
        ClientError::NoStore { reason, .. } => matches!(
            reason.kind(),
            io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        ),
        _ => false,
    }
}

fn to_json(status: &impl Serialize) -> Result<String, Box<dyn Error>> {
    Ok(serde_json::to_string_pretty(status)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_session_the_text_says_so() {
        let list = SessionList::of(Vec::new());
        assert!(list.to_text().contains("no session"), "{}", list.to_text());
        assert_eq!(to_json(&list).unwrap(), "{\n  \"sessions\": []\n}\n");
    }
}
