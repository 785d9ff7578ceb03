//! Which call of an actor with several calls at a time begins next.
//!
//! Each concurrency group has a *lane* for calls that run on threads, and one for calls that run as futures. A lane has
//! a number of places, and its calls begin in the order in which they came. A call with `&self` runs beside others; a
//! call with `&mut self` runs alone in the whole actor. When it is at the front of its lane, and that has a place, then
//! no later call begins before it, in any lane. So it waits for the calls that run, and is not starved by new ones.
//!
//! This module only decides. It is used with a lock held.

use std::collections::VecDeque;

/// Whether a call shares the state with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// `&self`.
    Beside,
    /// `&mut self`.
    Alone,
}

/// A call that begins. [`Lanes::over`] follows.
#[derive(Debug)]
pub(crate) struct Begun<J> {
    pub(crate) lane: usize,
    pub(crate) access: Access,
    pub(crate) job: J,
}

/// A running call whose thread waits, and the number of the wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneWait {
    pub(crate) lane: usize,
    pub(crate) access: Access,
    pub(crate) wait: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Lanes<J> {
    lanes: Vec<Lane<J>>,
    /// The number of the call that came last.
    last: u64,
    /// How many calls run beside each other.
    beside: usize,
    /// A call runs alone.
    is_alone: bool,
}

#[derive(Debug)]
struct Lane<J> {
    places: usize,
    running: usize,
    waiting: VecDeque<QueuedCall<J>>,
}

#[derive(Debug)]
struct QueuedCall<J> {
    number: u64,
    access: Access,
    job: J,
}

impl<J> Lanes<J> {
    /// Lanes with these numbers of places.
    pub(crate) fn new(places: impl IntoIterator<Item = usize>) -> Self {
        let lane = |places| Lane { places, running: 0, waiting: VecDeque::new() };
        Self { lanes: places.into_iter().map(lane).collect(), last: 0, beside: 0, is_alone: false }
    }

    /// A call has come.
    pub(crate) fn push(&mut self, lane: usize, access: Access, job: J) {
        self.last += 1;
        self.lanes[lane].waiting.push_back(QueuedCall { number: self.last, access, job });
    }

    /// The call that begins now, if one can begin.
    pub(crate) fn next(&mut self) -> Option<Begun<J>> {
        if self.is_alone {
            return None;
        }
        let (mut first, mut first_alone): (Option<(u64, usize, Access)>, _) = (None, u64::MAX);
        for (index, lane) in self.lanes.iter().enumerate() {
            let Some(front) = lane.waiting.front().filter(|_| lane.running < lane.places) else { continue };
            if first.is_none_or(|(number, ..)| front.number < number) {
                first = Some((front.number, index, front.access));
            }
            if front.access == Access::Alone {
                first_alone = first_alone.min(front.number);
            }
        }
        let (number, lane, access) = first?;
        if access == Access::Alone && self.beside > 0 || number > first_alone {
            return None;
        }
        let front = &mut self.lanes[lane];
        front.running += 1;
        let job = front.waiting.pop_front()?.job;
        match access {
            Access::Beside => self.beside += 1,
            Access::Alone => self.is_alone = true,
        }
        Some(Begun { lane, access, job })
    }

    /// A call that has begun is over.
    pub(crate) fn over(&mut self, lane: usize, access: Access) {
        self.lanes[lane].running -= 1;
        match access {
            Access::Beside => self.beside -= 1,
            Access::Alone => self.is_alone = false,
        }
    }

    /// The waits that hold back a call which has not begun: it does not begin before one of each set is over. No set:
    /// it has begun, or may begin. All calls that can begin have begun.
    pub(crate) fn behind(&self, is_it: impl Fn(&J) -> bool, waits: &[LaneWait]) -> Vec<Vec<u64>> {
        let has_it = |lane: &Lane<J>| lane.waiting.iter().any(|call| is_it(&call.job));
        let Some(lane) = self.lanes.iter().position(has_it) else { return Vec::new() };
        let numbers = |of: &dyn Fn(&LaneWait) -> bool| -> Vec<u64> {
            waits.iter().filter(|wait| of(wait)).map(|wait| wait.wait).collect()
        };
        let Lane { places, running, .. } = self.lanes[lane];
        if self.is_alone {
            let alone = numbers(&|wait| wait.access == Access::Alone);
            if alone.is_empty() { Vec::new() } else { vec![alone] }
        } else if running == places {
            // One of them ends first, which may be a call that does not wait.
            let in_places = numbers(&|wait| wait.lane == lane);
            if in_places.len() == places { vec![in_places] } else { Vec::new() }
        } else {
            // The lane has a place. So its first call, or an earlier one of another lane, is to run alone, and waits
            // for each call that runs.
            numbers(&|wait| wait.access == Access::Beside).into_iter().map(|wait| vec![wait]).collect()
        }
    }

    /// How many calls run in these lanes.
    pub(crate) fn running(&self, lanes: impl IntoIterator<Item = usize>) -> usize {
        lanes.into_iter().map(|lane| self.lanes[lane].running).sum()
    }

    /// Removes the calls that wait.
    pub(crate) fn take_waiting(&mut self) -> Vec<J> {
        self.lanes
            .iter_mut()
            .flat_map(|lane| std::mem::take(&mut lane.waiting))
            .map(|call| call.job)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Access::{Alone, Beside};
    use super::*;

    fn begin(lanes: &mut Lanes<u32>) -> Vec<u32> {
        std::iter::from_fn(|| lanes.next()).map(|begun| begun.job).collect()
    }

    #[test]
    fn a_call_alone_is_not_starved_and_keeps_its_turn() {
        let mut lanes = Lanes::new([4]);
        for (job, access) in [(1, Beside), (2, Beside), (3, Alone), (4, Beside), (5, Alone)] {
            lanes.push(0, access, job);
        }
        assert_eq!(begin(&mut lanes), [1, 2]);
        lanes.over(0, Beside);
        assert!(begin(&mut lanes).is_empty()); // 4 could run beside 2, but 3 came first
        lanes.over(0, Beside);
        assert_eq!(begin(&mut lanes), [3]);
        lanes.over(0, Alone);
        assert_eq!(begin(&mut lanes), [4]);
        lanes.over(0, Beside);
        assert_eq!(begin(&mut lanes), [5]);
    }

    #[test]
    fn a_full_lane_holds_up_no_other() {
        let mut lanes = Lanes::new([1, 2]);
        for (lane, job) in [(0, 1), (0, 2), (1, 3), (1, 4), (1, 5)] {
            lanes.push(lane, Beside, job);
        }
        assert_eq!(begin(&mut lanes), [1, 3, 4]);
        // It waits behind 2, which has no place yet, so that it holds nothing up.
        lanes.push(0, Alone, 6);
        lanes.over(1, Beside);
        assert_eq!(begin(&mut lanes), [5]);
        lanes.over(0, Beside);
        assert_eq!(begin(&mut lanes), [2]);
        assert_eq!(lanes.take_waiting(), [6]);
    }

    #[test]
    fn a_call_does_not_begin_while_the_waits_last_that_it_is_behind() {
        let mut lanes = Lanes::new([2, 1]);
        for (lane, access, job) in [(0, Beside, 1), (1, Beside, 2), (0, Beside, 3), (0, Beside, 4)] {
            lanes.push(lane, access, job);
        }
        assert_eq!(begin(&mut lanes), [1, 2, 3]);
        let wait = |lane, access, wait| LaneWait { lane, access, wait };
        let (one, two, three) = (wait(0, Beside, 1), wait(1, Beside, 2), wait(0, Beside, 3));
        let behind = |lanes: &Lanes<u32>, job, waits: &[LaneWait]| lanes.behind(|its| *its == job, waits);
        let none: [Vec<u64>; 0] = [];
        // It has begun; one of the places may come free; both do not.
        assert_eq!(behind(&lanes, 1, &[one, two, three]), none);
        assert_eq!(behind(&lanes, 4, &[one, two]), none);
        assert_eq!(behind(&lanes, 4, &[one, two, three]), [[1, 3]]);
        // One that runs alone waits for each call, and so do those that come after it.
        lanes.over(0, Beside);
        assert_eq!(begin(&mut lanes), [4]);
        lanes.over(0, Beside);
        lanes.push(0, Alone, 5);
        lanes.push(1, Beside, 6);
        assert_eq!(begin(&mut lanes), [0_u32; 0]);
        assert_eq!(behind(&lanes, 5, &[one, two]), [[1], [2]]);
        assert_eq!(behind(&lanes, 6, &[one, two]), [[2]]);
        lanes.over(0, Beside);
        lanes.over(1, Beside);
        assert_eq!(begin(&mut lanes), [5]);
        assert_eq!(behind(&lanes, 6, &[]), none);
        assert_eq!(behind(&lanes, 6, &[wait(0, Alone, 5)]), [[5]]);
    }

    #[test]
    fn random_calls_all_run_in_order_and_never_beside_one_alone() {
        // A small linear congruential generator: the same numbers each time.
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..200 {
            let places: Vec<usize> = (0..1 + random(3)).map(|_| 1 + random(3) as usize).collect();
            let mut lanes = Lanes::new(places.clone());
            let (mut running, mut begun) = (Vec::<Begun<u64>>::new(), vec![Vec::new(); places.len()]);
            // The sets that each call was behind. Each call waits all the time that it runs.
            let mut behind: Vec<(u64, Vec<u64>)> = Vec::new();
            let (mut came, mut over) = (0_u64, 0);
            while over < 100 {
                if came < 100 && random(2) == 0 {
                    came += 1;
                    let access = if random(3) == 0 { Alone } else { Beside };
                    lanes.push(random(places.len() as u64) as usize, access, came);
                } else if !running.is_empty() && random(3) > 0 {
                    let Begun { lane, access, job } =
                        running.swap_remove(random(running.len() as u64) as usize);
                    lanes.over(lane, access);
                    behind.retain(|(_, set)| !set.contains(&job));
                    over += 1;
                }
                while let Some(call) = lanes.next() {
                    begun[call.lane].push(call.job);
                    assert!(behind.iter().all(|(waiting, _)| *waiting != call.job), "{call:?} begins early");
                    running.push(call);
                }
                let wait =
                    |call: &Begun<u64>| LaneWait { lane: call.lane, access: call.access, wait: call.job };
                let waits: Vec<_> = running.iter().map(wait).collect();
                for job in (1..=came).filter(|_| random(8) == 0) {
                    let sets = lanes.behind(|its| *its == job, &waits);
                    let is_waiting = !begun.iter().flatten().any(|begun| *begun == job);
                    assert_eq!(is_waiting, !sets.is_empty(), "{job}: {sets:?}");
                    behind.extend(sets.into_iter().map(|set| (job, set)));
                }
                let alone = running.iter().filter(|call| call.access == Alone).count();
                assert!(alone == 0 || running.len() == 1, "{running:?}");
                for (lane, places) in places.iter().enumerate() {
                    assert!(running.iter().filter(|call| call.lane == lane).count() <= *places);
                }
                // If calls wait and none runs, nothing would ever run.
                assert!(!running.is_empty() || lanes.lanes.iter().all(|lane| lane.waiting.is_empty()));
            }
            assert!(begun.iter().all(|calls| calls.is_sorted()));
        }
    }
}
