//! The last figures of a session, for charts. Their number is limited: the oldest are dropped first.

use std::collections::VecDeque;

use serde::Serialize;

use super::sample::Sample;

/// Points that are kept: at one a second, a quarter of an hour.
const POINTS_MAX: usize = 900;

/// The figures of one moment, for charts. `None` is a gap in the line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Point {
    /// When, in seconds since 1970.
    pub(crate) at: f64,
    pub(crate) calls_per_s: Option<f64>,
    pub(crate) failures_per_s: Option<f64>,
    pub(crate) running: Option<u64>,
    pub(crate) pending: Option<u64>,
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) memory_bytes: u64,
    pub(crate) store_used_bytes: u64,
    pub(crate) store_object_bytes: u64,
    pub(crate) store_spilled_bytes: u64,
    pub(crate) waiting: Option<u64>,
}

impl From<&Sample> for Point {
    fn from(sample: &Sample) -> Self {
        let (figures, store) = (&sample.figures, &sample.store);
        Self {
            at: sample.at,
            calls_per_s: figures.calls_per_s,
            failures_per_s: figures.failures_per_s,
            running: figures.running,
            pending: figures.pending,
            cpu_percent: figures.cpu_percent,
            memory_bytes: figures.memory_bytes,
            store_used_bytes: store.used_bytes,
            store_object_bytes: store.object_bytes,
            store_spilled_bytes: store.spilled_bytes,
            waiting: store.waiting,
        }
    }
}

/// The last points, the oldest first.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct History {
    points: VecDeque<Point>,
}

impl History {
    pub(crate) fn push(&mut self, point: Point) {
        if self.points.len() == POINTS_MAX {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    pub(crate) fn points(&self) -> impl DoubleEndedIterator<Item = &Point> + ExactSizeIterator {
        self.points.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_points_go_and_the_memory_stays() {
        let mut history = History::default();
        for number in 0..10 * POINTS_MAX {
            history.push(Point { at: number as f64, ..Point::default() });
        }
        let times: Vec<f64> = history.points().map(|point| point.at).collect();
        assert_eq!(times, (9 * POINTS_MAX..10 * POINTS_MAX).map(|at| at as f64).collect::<Vec<_>>());
        assert!(history.points.capacity() <= 2 * POINTS_MAX);
        assert!(serde_json::to_string(&history).unwrap().starts_with("[{\"at\":"));
    }
}
