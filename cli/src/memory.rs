//! `mobula memory`: the holders of the objects of a store.

use std::error::Error;
use std::fmt::Write as _;

use mobula_protocol::size::ByteSize;
use mobula_runtime::state::{HeldObject, Hold, MemoryGroup, MemoryReport, SiteGroup};
use mobula_runtime::words::{count, seconds};

use crate::rows::limit;
use crate::session::Look;
use crate::table::{Side, columns, printable};

/// Shows who holds the objects of the store: a table by holder, the largest objects, and reference cycles of objects.
#[derive(Debug, clap::Args)]
pub(crate) struct MemoryCommand {
    #[command(flatten)]
    look: Look,
    /// Show at most this number of objects.
    #[arg(long, value_name = "OBJECTS", default_value_t = 20, allow_hyphen_values = true, value_parser = limit)]
    limit: usize,
    /// Show only objects of at least this size, as in 100000 or 4MiB.
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(0))]
    min_bytes: ByteSize,
}

impl MemoryCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let observer = self.look.observer()?;
        let mut report = observer.look()?.memory(&observer)?;
        report.held.retain(|held| held.object.bytes >= self.min_bytes.0);
        report.held.truncate(self.limit);
        self.look.show(&report, || text(&report))
    }
}

fn text(report: &MemoryReport) -> String {
    let mut text = format!("{} of {}\n", count(report.objects, "object"), ByteSize(report.bytes));
    if !report.groups.is_empty() {
        text += "\nby holder (ALONE: held by nothing else)\n";
        text += &columns(GROUP_HEAD, &report.groups.iter().map(group_row).collect::<Vec<_>>());
    }
    if !report.sites.is_empty() {
        text += "\nby place\n";
        text += &columns(SITE_HEAD, &report.sites.iter().map(site_row).collect::<Vec<_>>());
    }
    if !report.held.is_empty() {
        text += "\nlargest objects\n";
        text += &columns(HELD_HEAD, &report.held.iter().map(held_row).collect::<Vec<_>>());
    }
    for circle in &report.circles {
        let pids: Vec<String> = circle.pids.iter().map(u32::to_string).collect();
        let _ = writeln!(
            text,
            "\nunreachable but held (unless process {}, which made them, has handles): {} objects of {} keep each \
             other: {}",
            pids.join(", "),
            circle.objects.len(),
            ByteSize(circle.bytes),
            circle.objects.join(", ")
        );
    }
    text
}

const GROUP_HEAD: [(&str, Side); 6] = [
    ("KIND", Side::Left),
    ("PID", Side::Right),
    ("HOLDER", Side::Left),
    ("OBJECTS", Side::Right),
    ("BYTES", Side::Right),
    ("ALONE", Side::Right),
];

fn group_row(group: &MemoryGroup) -> [String; 6] {
    [
        group.kind.to_owned(),
        if group.pid == 0 { "-".to_owned() } else { group.pid.to_string() },
        printable(&group.holder),
        group.objects.to_string(),
        ByteSize(group.bytes).to_string(),
        ByteSize(group.alone_bytes).to_string(),
    ]
}

const SITE_HEAD: [(&str, Side); 4] =
    [("MADE AT", Side::Left), ("OBJECTS", Side::Right), ("BYTES", Side::Right), ("OLDEST", Side::Right)];

fn site_row(site: &SiteGroup) -> [String; 4] {
    [
        printable(&site.made_at),
        site.objects.to_string(),
        ByteSize(site.bytes).to_string(),
        seconds(site.oldest_s),
    ]
}

const HELD_HEAD: [(&str, Side); 6] = [
    ("OBJECT", Side::Left),
    ("BYTES", Side::Right),
    ("FORMAT", Side::Left),
    ("STATE", Side::Left),
    ("OWNER", Side::Right),
    ("HELD BY", Side::Left),
];

fn held_row(held: &HeldObject) -> [String; 6] {
    [
        held.object.object.clone(),
        ByteSize(held.object.bytes).to_string(),
        held.object.format.to_owned(),
        held.object.state.to_owned(),
        held.object.owner_pid.to_string(),
        held.holds.iter().map(hold_text).collect::<Vec<_>>().join(", "),
    ]
}

fn hold_text(hold: &Hold) -> String {
    let by = hold.by.as_ref().map_or_else(String::new, |by| format!(" {}", printable(by)));
    match hold.pid {
        0 => format!("{}{by}", hold.kind),
        pid => format!("{} in {pid}{by}", hold.kind),
    }
}
