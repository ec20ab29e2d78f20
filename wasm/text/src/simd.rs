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
    /// error, 1.1e-7 before rounding.
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

    /// weights = 2^((values - max) * scale), 0 where the exponent is below `floor` >= -126. Both
    /// are of one block. Within 4e-6 of the exact weight, relative.
    pub fn weigh_block(&self, values: &[f32], weights: &mut [f32; BLOCK], shape: [f32; 3]) {
        let exp2 = self.vectors(shape);
        for (values, weights) in values.chunks_exact(LANES).zip(weights.chunks_exact_mut(LANES)) {
            store(weights, exp2(load(values)));
        }
    }

    /// A function that sums the weights of a block's values from `least` up. Those below the floor
    /// count as 2^floor: all of a row together are less than its rounding.
    #[inline(always)]
    pub fn block_sum(&self, [max, scale, floor]: [f32; 3], least: f32) -> impl Fn(&[f32]) -> f64 {
        let exp2 = self.clamped([max, scale, floor]);
        let (is_cut, least) = (least > f32::NEG_INFINITY, f32x4_splat(least));
        move |values| {
            let mut sums = [f32x4_splat(0.0); 4];
            for sixteen in values.chunks_exact(4 * LANES) {
                for (sum, values) in sums.iter_mut().zip(sixteen.chunks_exact(LANES)) {
                    let values = load(values);
                    let weights = exp2(values);
                    let kept = match is_cut {
                        true => v128_and(weights, f32x4_ge(values, least)),
                        false => weights,
                    };
                    *sum = f32x4_add(*sum, kept);
                }
            }
            add_lanes(f32x4_add(f32x4_add(sums[0], sums[1]), f32x4_add(sums[2], sums[3])))
        }
    }

    /// The weights of four values; 0 where the exponent is below `floor`.
    #[inline(always)]
    fn vectors(&self, [max, scale, floor]: [f32; 3]) -> impl Fn(v128) -> v128 {
        let clamped = self.clamped([max, scale, floor]);
        let (max, scale, floor) = (f32x4_splat(max), f32x4_splat(scale), f32x4_splat(floor));
        // Also false where -inf times a scale of 0 is NaN.
        move |values| {
            let exponent = f32x4_mul(f32x4_sub(values, max), scale);
            v128_and(clamped(values), f32x4_ge(exponent, floor))
        }
    }

    /// The weights of four values; 2^floor where the exponent is below `floor`.
    #[inline(always)]
    fn clamped(&self, [max, scale, floor]: [f32; 3]) -> impl Fn(v128) -> v128 {
        let (max, scale, floor) = (f32x4_splat(max), f32x4_splat(scale), f32x4_splat(floor));
        let (magic, one) = (f32x4_splat(self.magic), f32x4_splat(self.one));
        let [c5, c4, c3, c2, c1] = self.coefficients.map(|c| f32x4_splat(c));
        move |values| {
            // pmax takes the floor where -inf times a scale of 0 is NaN.
            let t = f32x4_pmax(floor, f32x4_mul(f32x4_sub(values, max), scale));
            let shifted = f32x4_add(t, magic);
            let f = f32x4_sub(t, f32x4_sub(shifted, magic));
            let mut p = f32x4_relaxed_madd(c5, f, c4);
            p = f32x4_relaxed_madd(p, f, c3);
            p = f32x4_relaxed_madd(p, f, c2);
            p = f32x4_relaxed_madd(p, f, c1);
            p = f32x4_relaxed_madd(p, f, one);
            i32x4_add(p, i32x4_shl(shifted, 23))
        }
    }
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
