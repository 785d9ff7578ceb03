//! The cost of recording for a program's calls.

use std::time::Instant;

#[mobula::remote]
fn successor(x: i64) -> i64 {
    x + 1
}

struct Total {
    value: i64,
}

#[mobula::remote]
impl Total {
    fn new() -> Self {
        Self { value: 0 }
    }

    fn add(&mut self, x: i64) -> i64 {
        self.value += x;
        self.value
    }
}

/// Prints what calls take with events and without, in turn, so that both meet the same machine. In a release build, on
/// a machine that does nothing else: `cargo test --release --test events -- --ignored --nocapture`.
#[test]
#[ignore = "it measures, which takes a quiet machine"]
fn the_cost_of_events() {
    const ROUNDS: usize = 21;
    const CALLS: usize = 20_000;
    let settings = ["none", "waits,exceptions", "all"];
    let mut times: Vec<Vec<[f64; 4]>> = vec![Vec::new(); settings.len()];
    for round in 0..ROUNDS {
        for (at, setting) in settings.iter().enumerate() {
            // SAFETY: no other thread of this test runs: the session of the round before has ended.
            unsafe { std::env::set_var("MOBULA_EVENTS", setting) };
            let times = &mut times[at];
            let _session = mobula::Builder::new().workers(1).init().unwrap();
            let actor = Total::remote();
            let mut measured = [0.0; 4];
            let mut measure = |at: usize, count: usize, run: &mut dyn FnMut()| {
                (0..CALLS / 10 / count).for_each(|_| run());
                let start = Instant::now();
                (0..CALLS / count).for_each(|_| run());
                measured[at] = start.elapsed().as_nanos() as f64 / CALLS as f64;
            };
            measure(0, 1, &mut || assert_eq!(successor::remote(1).get().unwrap(), 2));
            measure(1, 1, &mut || _ = actor.add(1).get().unwrap());
            measure(2, 1000, &mut || {
                let results: Vec<_> = (0..1000).map(|_| successor::remote(1)).collect();
                mobula::get(&results).unwrap();
            });
            measure(3, 1000, &mut || {
                let results: Vec<_> = (0..1000).map(|_| actor.add(1)).collect();
                mobula::get(&results).unwrap();
            });
            if round > 0 {
                times.push(measured);
            }
        }
    }
    for (kind, name) in ["task and wait", "actor call and wait", "tasks", "actor calls"].iter().enumerate() {
        let of = |setting: usize| times[setting].iter().map(|times| times[kind]).collect::<Vec<_>>();
        let (none, some, all) = (of(0), of(1), of(2));
        let ratio =
            |with: &[f64]| median(with.iter().zip(&none).map(|(with, without)| with / without).collect());
        println!(
            "{name}: {:.0} ns without events, {:.3} of it with those that are rare, {:.3} with all",
            median(none.clone()),
            ratio(&some),
            ratio(&all)
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
