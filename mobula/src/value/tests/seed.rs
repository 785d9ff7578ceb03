//! Random numbers from seeds. A failing test prints the seed that replays it:
//! `MOBULA_SEED=<seed> cargo test -p mobula <name of the test>`.

/// Runs `test` with `count` new seeds, or with the one of the environment.
pub(super) fn for_each_seed(count: u64, test: impl Fn(Random)) {
    let replayed = std::env::var("MOBULA_SEED").ok().map(|seed| seed.parse().expect("a seed is a number"));
    let first = replayed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
    for index in 0..replayed.map_or(count, |_| 1) {
        let seed = PrintSeed(first.wrapping_add(index));
        test(Random(seed.0));
    }
}

struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with MOBULA_SEED={}", self.0);
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
