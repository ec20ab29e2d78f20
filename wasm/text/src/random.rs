//! A random stream that can be read at any place: draw n is a function of (seed, n) alone.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64 (Steele, Lea, Flood 2014, variant 13 of Stafford's mixers).
fn finish(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// Uniform in [0, 1), a multiple of 2^-53: output `position` of a SplitMix64 generator whose state
/// is the first output of one seeded with `seed`; with an `attempt` > 0 output `attempt` - 1 of one
/// whose state is that output.
pub fn uniform(seed: u64, position: u64, attempt: u64) -> f64 {
    let state = finish(seed.wrapping_add(GOLDEN));
    let mut word = finish(state.wrapping_add(position.wrapping_add(1).wrapping_mul(GOLDEN)));
    if attempt > 0 {
        word = finish(word.wrapping_add(attempt.wrapping_mul(GOLDEN)));
    }
    (word >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}
