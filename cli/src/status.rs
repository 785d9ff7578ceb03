//! `mobula status`: the clients of a store, their memory, and the objects that have names.
//!
//! The command connects as a client like any other, asks, and leaves. It does not count itself in its output. The
//! numbers come from several round trips, so they are not of one moment.
//!
//! # JSON
//!
//! With `--json` the output is one object. Sizes are numbers of bytes. Keys may be added; the keys listed here stay.
//!
//! With `--socket`, a store:
//!
//! ```json
//! {
//!   "socket": "/run/user/1000/mobula/session-4711-0/store.sock",
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
//! `name` is `null` where a name is not UTF-8; `bytes` and `holders` are `null` where the object was gone before it was
//! looked at. A `dead` client has left objects that others use, which the store keeps.
//!
//! Without `--socket`, the sessions: `{"sessions": [{"socket": "…", "totals": {…}}]}`. A session whose store does not
//! answer as it should has `null` as its `totals`, and an `error` that says why.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use mobula_client::{Client, ClientError, ClientInfo, ConnectOptions, Totals};
use mobula_protocol::size::ByteSize;
use serde::Serialize;

use crate::session::print;
use crate::table::{Side, columns, printable};

/// Shows who uses a store, for how much, and which objects have names; without a socket, lists the running sessions.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
JSON: one object; sizes are numbers of bytes.
  With --socket:    {socket, totals, clients: [client], names: [name]}
  Without:          {sessions: [{socket, totals}]}; for a store that does not answer: {socket, totals: null, error}
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
    /// Print one JSON object instead of text; `--help` has its keys.
    #[arg(long)]
    json: bool,
}

impl StatusCommand {
    /// Asks and prints.
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let text = match (&self.socket, self.json) {
            (Some(socket), false) => StoreStatus::of(socket)?.to_text(),
            (Some(socket), true) => to_json(&StoreStatus::of(socket)?)?,
            (None, false) => SessionList::of(mobula::sessions()).to_text(),
            (None, true) => to_json(&SessionList::of(mobula::sessions()))?,
        };
        print(&text)
    }
}

/// One store with all that is in it.
#[derive(Debug, Serialize)]
struct StoreStatus {
    socket: String,
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
        let client = connect(socket).map_err(|error| explain(socket, error))?;
        let stats = client.stats()?;
        let others = stats.clients.into_iter().filter(|info| info.owner != client.id());
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
            totals: without_us(stats.totals),
            clients: others.collect(),
            names: names.collect(),
        })
    }

    fn to_text(&self) -> String {
        let mut text = format!("store at {}\n", printable(&self.socket));
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
            match connect(&path).and_then(|client| client.stats()) {
                Ok(stats) => {
                    let totals = Some(without_us(stats.totals));
                    sessions.push(SessionStatus { socket, totals, error: None });
                }
                Err(error) if has_ended(&error) => {}
                Err(error) => {
                    let error = Some(explain(&path, error).to_string());
                    sessions.push(SessionStatus { socket, totals: None, error });
                }
            }
        }
        Self { sessions }
    }

    fn to_text(&self) -> String {
        if self.sessions.is_empty() {
            return "no session of this user's is running\n".to_owned();
        }
        self.sessions.iter().map(SessionStatus::to_text).collect::<Vec<_>>().join("\n")
    }
}

impl SessionStatus {
    fn to_text(&self) -> String {
        let mut text = format!("session at {}\n", printable(&self.socket));
        if let Some(totals) = &self.totals {
            text += &totals_text(totals);
        }
        if let Some(error) = &self.error {
            let _ = writeln!(text, "  {}", printable(error));
        }
        text
    }
}

/// The totals as they were before this process connected, which leased nothing.
fn without_us(mut totals: Totals) -> Totals {
    totals.clients = totals.clients.saturating_sub(1);
    totals
}

fn totals_text(totals: &Totals) -> String {
    let mut text = String::new();
    for (name, bytes, remark) in [
        ("capacity", totals.capacity_bytes, String::new()),
        ("leased", totals.leased_bytes, format!("to {}", count(totals.clients, "client"))),
        ("orphaned", totals.orphaned_bytes, format!("from {}", count(totals.dead_clients, "dead client"))),
        ("retired", totals.retired_bytes, "given back, but still mapped".to_owned()),
        ("free", totals.free_bytes, String::new()),
        ("spilled", totals.spill_bytes, format!("on disk, in {}", count(totals.spill_files, "file"))),
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

fn connect(socket: &Path) -> Result<Client, ClientError> {
    ConnectOptions::new().label("mobula status").connect(socket)
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

/// The error in words that fit a person who gave a path.
fn explain(socket: &Path, error: ClientError) -> Box<dyn Error> {
    match error {
        // Says the path itself, and its length.
        ClientError::NoStore { reason, .. } if reason.kind() == io::ErrorKind::InvalidInput => reason.into(),
        ClientError::NoStore { .. }
            if std::fs::metadata(socket).is_ok_and(|file| !file.file_type().is_socket()) =>
        {
            format!("{} is not a socket", socket.display()).into()
        }
        error @ ClientError::NoStore { .. } => error.into(),
        error => format!("the store at {}: {error}", socket.display()).into(),
    }
}

fn count(number: u32, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
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
