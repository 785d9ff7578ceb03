//! Numbers that look random, and are the same in every run and in every process.

/// Different numbers of different ones, far apart (the last step of MurmurHash3).
pub fn scrambled(mut number: u64) -> u64 {
    number = (number ^ number >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    number = (number ^ number >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ number >> 33
}
