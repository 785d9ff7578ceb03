//! The map of the store: the parts of each segment that hold objects.
//!
//! It is made only while a page shows it, with a pause between two maps, by a client of its own. So a store that does
//! not answer delays no other figure. The size of a map is limited: if there are too many parts, adjacent parts are
//! drawn as one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_client::{Client, ClientError, ClientInfo, ConnectOptions, LocationInfo, OwnerId, SegmentInfo};
use parking_lot::Mutex;
use serde::Serialize;

/// The pause between two maps.
const PAUSE: Duration = Duration::from_secs(1);
/// The most segments on a map. The largest come first.
const SEGMENTS_MAX: usize = 200;
/// The most parts of a segment on a map.
const PARTS_MAX: usize = 512;
/// Smaller gaps are not counted: they are alignment and headers of objects.
const GAP_BYTES_MIN: u64 = 256;

/// The last map.
#[derive(Debug)]
pub(super) struct Maps {
    socket: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    client: Option<Client>,
    last: Option<(Instant, Arc<String>)>,
}

/// The store's memory.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Map {
    segments: Vec<Segment>,
    segments_left_out: usize,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Segment {
    /// The process that writes in it.
    pid: u32,
    label: String,
    number: u32,
    bytes: u64,
    /// Bytes of its pages: less than its size once the owner has given pages back.
    page_bytes: u64,
    /// `leased`, `orphaned` or `retired`.
    phase: &'static str,
    /// Processes other than its owner that have it mapped.
    readers: u32,
    objects: u64,
    object_bytes: u64,
    /// Gaps between objects and at the end, and the largest of them.
    gaps: u64,
    gap_bytes_max: u64,
    /// The parts that hold objects: `[offset, bytes, objects]`, in order.
    parts: Vec<(u64, u64, u64)>,
}

impl Maps {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket, state: Mutex::default() }
    }

    /// The map as JSON. Blocks while the store does not answer, up to the client's timeout. Other pages that ask for
    /// the map wait, too.
    pub(super) fn json(&self) -> Result<Arc<String>, String> {
        let mut state = self.state.lock();
        if let Some((_, map)) = state.last.as_ref().filter(|(at, _)| at.elapsed() < PAUSE) {
            return Ok(map.clone());
        }
        match state.look(&self.socket) {
            Ok(map) => {
                let map = Arc::new(serde_json::to_string(&map).map_err(|error| error.to_string())?);
                state.last = Some((Instant::now(), map.clone()));
                Ok(map)
            }
            Err(error) => {
                state.client = None;
                // After the session's end, the last map stays.
                state.last.as_ref().map(|(_, map)| map.clone()).ok_or_else(|| error.to_string())
            }
        }
    }
}

impl State {
    fn look(&mut self, socket: &Path) -> Result<Map, ClientError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => ConnectOptions::new().label("observer").connect(socket)?,
        };
        let (segments, locations, clients) =
            (client.segments()?, client.locations()?, client.stats()?.clients);
        self.client = Some(client);
        Ok(map(segments, &locations, &clients))
    }
}

/// Draws a map.
fn map(mut segments: Vec<SegmentInfo>, locations: &[LocationInfo], clients: &[ClientInfo]) -> Map {
    let mut map = Map::default();
    let mut lying: BTreeMap<(OwnerId, u32), Vec<(u64, u64)>> = BTreeMap::new();
    for location in locations {
        let objects = lying.entry((location.owner, location.segment)).or_default();
        objects.push((location.offset, location.bytes));
    }
    segments.sort_by_key(|info| std::cmp::Reverse(info.bytes));
    map.segments_left_out = segments.len().saturating_sub(SEGMENTS_MAX);
    segments.truncate(SEGMENTS_MAX);
    map.segments = segments
        .into_iter()
        .map(|info| {
            let objects = lying.remove(&(info.owner, info.segment)).unwrap_or_default();
            let client = clients.iter().find(|client| client.owner == info.owner);
            let (pid, label) = client.map_or((0, ""), |client| (client.pid, client.label.as_str()));
            segment(&info, pid, label, objects)
        })
        .collect();
    map.segments.sort_by_key(|segment| (segment.pid, segment.number));
    map
}

fn segment(info: &SegmentInfo, pid: u32, label: &str, mut objects: Vec<(u64, u64)>) -> Segment {
    objects.sort_unstable();
    let (mut parts, mut gaps, mut largest, mut end) = (Vec::new(), 0, 0, 0_u64);
    for (offset, bytes) in &objects {
        // A table can contain wrong values: the part is cut to its segment.
        let (offset, until) = (offset.min(&info.bytes), offset.saturating_add(*bytes).min(info.bytes));
        let gap = offset.saturating_sub(end);
        if gap >= GAP_BYTES_MIN {
            (gaps, largest) = (gaps + 1, gap.max(largest));
        }
        parts.push((*offset, until.saturating_sub(*offset), 1));
        end = end.max(until);
    }
    let rest = info.bytes.saturating_sub(end);
    if rest >= GAP_BYTES_MIN {
        (gaps, largest) = (gaps + 1, rest.max(largest));
    }
    Segment {
        pid,
        label: label.to_owned(),
        number: info.segment,
        bytes: info.bytes,
        page_bytes: info.page_bytes,
        phase: match (info.orphaned, info.retired) {
            (_, true) => "retired",
            (true, false) => "orphaned",
            (false, false) => "leased",
        },
        readers: info.readers,
        objects: objects.len() as u64,
        object_bytes: objects.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes)),
        gaps,
        gap_bytes_max: largest,
        parts: joined(parts, info.bytes),
    }
}

/// Joins adjacent parts until there are few enough: first those that touch, then those with larger and larger gaps
/// between them.
fn joined(mut parts: Vec<(u64, u64, u64)>, bytes: u64) -> Vec<(u64, u64, u64)> {
    let mut gap = GAP_BYTES_MIN;
    loop {
        parts = parts.into_iter().fold(
            Vec::new(),
            |mut joined: Vec<(u64, u64, u64)>, (offset, length, objects)| {
                match joined.last_mut() {
                    Some(last) if offset.saturating_sub(last.0 + last.1) < gap => {
                        last.1 = last.1.max((offset + length).saturating_sub(last.0));
                        last.2 += objects;
                    }
                    _ => joined.push((offset, length, objects)),
                }
                joined
            },
        );
        if parts.len() <= PARTS_MAX || gap > bytes {
            return parts;
        }
        gap *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_side_by_side_are_one_and_gaps_are_counted() {
        let mut info = SegmentInfo::new(OwnerId::new(1, 7), 3);
        (info.bytes, info.page_bytes) = (1 << 20, 1 << 20);
        let objects = vec![(64, 1000), (1088, 1000), (1 << 19, 1 << 18), (u64::MAX, 9)];
        let segment = segment(&info, 1, "worker 1", objects);
        assert_eq!(segment.parts[..2], [(64, 2024, 2), (1 << 19, 1 << 18, 1)]);
        assert_eq!((segment.objects, segment.gaps), (4, 2));
        assert_eq!(segment.phase, "leased");
    }

    #[test]
    fn a_map_of_many_objects_is_small() {
        let parts: Vec<_> = (0..100_000).map(|number| (number * 4096, 64, 1)).collect();
        let joined = joined(parts, 100_000 * 4096);
        assert!(joined.len() <= PARTS_MAX);
        assert_eq!(joined.iter().map(|part| part.2).sum::<u64>(), 100_000, "none is lost");
        assert!(joined.is_sorted_by_key(|part| part.0));
    }
}
