//! The two passes over whole rows that are worth vectors: block maxima and exponentials.

use std::arch::wasm32::*;

/// Elements of a block; a row is padded to whole blocks.
pub const BLOCK: usize = 128;
/// f32 lanes of a vector.
const LANES: usize = 4;

/// The first four of `values`.
#[inline(always)]
fn load(values: &[f32]) -> v128 {
    let four: &[f32; LANES] = values[..LANES].try_into().expect("four values");
    // SAFETY: `four` is 16 readable bytes; a vector load needs no alignment.
    unsafe { v128_load(four.as_ptr().cast()) }
}

#[inline(always)]
fn store(values: &mut [f32], vector: v128) {
    let four: &mut [f32; LANES] = (&mut values[..LANES]).try_into().expect("four values");
    // SAFETY: `four` is 16 writable bytes; a vector store needs no alignment.
    unsafe { v128_store(four.as_mut_ptr().cast(), vector) }
}

/// Largest element of a block of BLOCK; NaN if there is one.
pub fn block_max(block: &[f32]) -> f32 {
    let mut max = [f32x4_splat(f32::NEG_INFINITY); 4];
    let mut is_nan = [u32x4_splat(0); 4];
    for four in block.chunks_exact(4 * LANES) {
        for (i, values) in four.chunks_exact(LANES).enumerate() {
            let values = load(values);
            // One instruction where f32x4_max is six, but blind to NaN.
            max[i] = f32x4_pmax(max[i], values);
            is_nan[i] = v128_or(is_nan[i], f32x4_ne(values, values));
        }
    }
    let any = |v: [v128; 4]| v128_or(v128_or(v[0], v[1]), v128_or(v[2], v[3]));
    if v128_any_true(any(is_nan)) {
        return f32::NAN;
    }
    let mut lanes = [0.0; LANES];
    store(&mut lanes, f32x4_pmax(f32x4_pmax(max[0], max[1]), f32x4_pmax(max[2], max[3])));
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// Constants of the exponential in registers: an engine builds one that is written as a constant
/// anew each time, in four instructions.
pub struct Exp2 {
    /// Of 2^f for |f| <= 1/2, from the fifth power down to the first: minimax for the relative
    /// error,
    /// 1.1e-7 before rounding.
    coefficients: [f32; 5],
    /// 1.5 * 2^23: adding it rounds to an integer, which is then in the lowest bits.
    magic: f32,
    one: f32,
}

impl Exp2 {
    pub fn new() -> Exp2 {
        std::hint::black_box(Exp2 {
            coefficients: [1.326_472_6e-3, 9.671_513e-3, 5.550_733_6e-2, 0.240_222_42, 0.693_147],
            magic: 12_582_912.0,
            one: 1.0,
        })
    }

    /// weights = 2^((values - max) * scale), 0 where the exponent is below `floor` >= -126; returns
    /// their sum. Both are of one block. Within 4e-6 of the exact weight, relative.
    pub fn weigh_block(
        &self,
        values: &[f32],
        weights: &mut [f32],
        [max, scale, floor]: [f32; 3],
    ) -> f64 {
        let (max, scale, floor) = (f32x4_splat(max), f32x4_splat(scale), f32x4_splat(floor));
        let (magic, one) = (f32x4_splat(self.magic), f32x4_splat(self.one));
        let [c5, c4, c3, c2, c1] = self.coefficients.map(|c| f32x4_splat(c));
        let exp2 = |values: &[f32]| {
            let t = f32x4_mul(f32x4_sub(load(values), max), scale);
            let shifted = f32x4_add(t, magic);
            let f = f32x4_sub(t, f32x4_sub(shifted, magic));
            let mut p = f32x4_add(f32x4_mul(c5, f), c4);
            p = f32x4_add(f32x4_mul(p, f), c3);
            p = f32x4_add(f32x4_mul(p, f), c2);
            p = f32x4_add(f32x4_mul(p, f), c1);
            p = f32x4_add(f32x4_mul(p, f), one);
            let e = i32x4_add(p, i32x4_shl(shifted, 23));
            // Also false where -inf times a scale of 0 is NaN.
            v128_and(e, f32x4_ge(t, floor))
        };
        let mut sum = f32x4_splat(0.0);
        let pairs = values.chunks_exact(4 * LANES).zip(weights.chunks_exact_mut(4 * LANES));
        for (values, weights) in pairs {
            for at in [0, LANES, 2 * LANES, 3 * LANES] {
                let e = exp2(&values[at..]);
                store(&mut weights[at..], e);
                sum = f32x4_add(sum, e);
            }
        }
        add_lanes(sum)
    }
}

/// Sets weights to 0 where the value is below `lowest`, or equals it unless `keep_equal`; returns
/// the sum of the others.
pub fn mask_block(values: &[f32], weights: &mut [f32], lowest: f32, keep_equal: bool) -> f64 {
    let (lowest, keep_equal) =
        (f32x4_splat(lowest), u32x4_splat(0u32.wrapping_sub(keep_equal as u32)));
    let mut sum = f32x4_splat(0.0);
    for (value, weight) in values.chunks_exact(LANES).zip(weights.chunks_exact_mut(LANES)) {
        let value = load(value);
        let equal = v128_and(f32x4_eq(value, lowest), keep_equal);
        let kept = v128_and(load(weight), v128_or(f32x4_gt(value, lowest), equal));
        store(weight, kept);
        sum = f32x4_add(sum, kept);
    }
    add_lanes(sum)
}

/// Calls `found` with the place and value of each element of the block from `low` to `high`.
pub fn find_between(values: &[f32], low: f32, high: f32, mut found: impl FnMut(usize, f32)) {
    let (low, high) = (f32x4_splat(low), f32x4_splat(high));
    for (i, four) in values.chunks_exact(LANES).enumerate() {
        let vector = load(four);
        let mut mask = i32x4_bitmask(v128_and(f32x4_ge(vector, low), f32x4_le(vector, high)));
        while mask != 0 {
            let lane = mask.trailing_zeros() as usize;
            found(i * LANES + lane, four[lane]);
            mask &= mask - 1;
        }
    }
}

fn add_lanes(vector: v128) -> f64 {
    let mut lanes = [0.0; LANES];
    store(&mut lanes, vector);
    lanes.iter().map(|lane| *lane as f64).sum()
}
