//! Integer dot products of four outputs by four columns at a time.
//!
//! A vector of weights holds four columns of each of four outputs; the same four columns of an
//! activation row are repeated in all lanes, so that every lane sums one output. With relaxed SIMD
//! the product is i16x8.relaxed_dot_i8x16_i7x16, whose second operand must be 0 to 127: q4's
//! elements are, and of q8 the activation's magnitudes are, whose signs move to the weights. All
//! results are exact, in both builds.

use crate::formats::GROUP;
use core::arch::wasm32::*;

/// Ones in 16-bit lanes, and the low halves of bytes.
pub type Constants = [v128; 2];

/// Read through volatile memory, because a constant that the compiler knows is made anew inside
/// the loop.
#[inline(always)]
pub fn constants() -> Constants {
    static VALUES: [u32; 2] = [0x0001_0001, 0x0f0f_0f0f];
    VALUES.each_ref().map(|value| u32x4_splat(unsafe { core::ptr::read_volatile(value) }))
}

/// Pairs of four columns in a group: 4, which the compiler is not to know. It would unroll the
/// loop, nest the terms of a sum and run out of registers.
#[inline(always)]
pub fn pairs() -> usize {
    static PAIRS: usize = GROUP / 8;
    unsafe { core::ptr::read_volatile(&PAIRS) }
}

/// Sixteen stored columns of four outputs by one row's group of 32 activations.
pub trait Dot {
    /// Bytes of 32 columns of four outputs.
    const WEIGHT_BYTES: usize;
    /// Bytes that an activation row's group of 32 takes: what `store` writes.
    const ROW_BYTES: usize;
    /// Four columns of a row.
    type Columns: Copy;
    type Sum: Copy;
    /// Columns 8 pair to 8 pair + 4, and the four behind them.
    unsafe fn weights(from: *const u8, pair: usize, constants: Constants) -> [v128; 2];
    /// Columns 4 step to 4 step + 4.
    unsafe fn columns(row: *const u8, step: usize) -> Self::Columns;
    fn start() -> Self::Sum;
    fn add(sum: Self::Sum, weights: v128, x: Self::Columns, constants: Constants) -> Self::Sum;
    /// The four outputs' sums, short of the row's `correction`.
    fn finish(sum: Self::Sum, constants: Constants) -> v128;
    /// Stores 32 rounded activations; returns what is to be added to every sum.
    unsafe fn store(to: *mut u8, x: [v128; 2]) -> i32;
}

/// The sum of 32 signed bytes.
#[inline(always)]
fn total(x: [v128; 2]) -> i32 {
    let pairs = i16x8_add(i16x8_extadd_pairwise_i8x16(x[0]), i16x8_extadd_pairwise_i8x16(x[1]));
    let fours = i32x4_extadd_pairwise_i16x8(pairs);
    let halves = i32x4_add(fours, i32x4_shuffle::<2, 3, 0, 1>(fours, fours));
    i32x4_extract_lane::<0>(halves) + i32x4_extract_lane::<1>(halves)
}

#[inline(always)]
unsafe fn repeated(from: *const u8) -> v128 {
    v128_load32_splat(from as *const u32)
}

#[inline(always)]
unsafe fn vector(from: *const u8) -> v128 {
    v128_load(from as *const v128)
}

/// Two vectors of q8.
#[inline(always)]
unsafe fn bytes(from: *const u8, pair: usize) -> [v128; 2] {
    [vector(from.add(pair * 32)), vector(from.add(pair * 32 + 16))]
}

/// Two vectors of q4, q + 8.
#[inline(always)]
unsafe fn nibbles(from: *const u8, pair: usize, constants: Constants) -> [v128; 2] {
    let both = vector(from.add(pair * 16));
    [v128_and(both, constants[1]), v128_and(u16x8_shr(both, 4), constants[1])]
}

#[inline(always)]
unsafe fn store_bytes(to: *mut u8, x: [v128; 2]) {
    v128_store(to as *mut v128, x[0]);
    v128_store(to.add(16) as *mut v128, x[1]);
}

pub struct Q8;
pub struct Q4;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for Q8 {
    const WEIGHT_BYTES: usize = 128;
    const ROW_BYTES: usize = 64;
    /// Magnitudes, and all ones where the activation is negative.
    type Columns = [v128; 2];
    type Sum = v128;

    #[inline(always)]
    unsafe fn weights(from: *const u8, pair: usize, _constants: Constants) -> [v128; 2] {
        bytes(from, pair)
    }

    #[inline(always)]
    unsafe fn columns(row: *const u8, step: usize) -> [v128; 2] {
        [repeated(row.add(step * 4)), repeated(row.add(32 + step * 4))]
    }

    #[inline(always)]
    fn start() -> v128 {
        i32x4_splat(0)
    }

    /// -w = ~w + 1: the ones are left to the correction. Sums of two fit into 16 bits.
    #[inline(always)]
    fn add(sum: v128, weights: v128, x: [v128; 2], constants: Constants) -> v128 {
        let pairs = i16x8_relaxed_dot_i8x16_i7x16(v128_xor(weights, x[1]), x[0]);
        i32x4_add(sum, i32x4_dot_i16x8(pairs, constants[0]))
    }

    #[inline(always)]
    fn finish(sum: v128, _constants: Constants) -> v128 {
        sum
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, x: [v128; 2]) -> i32 {
        let negative = x.map(|x| i8x16_lt(x, i8x16_splat(0)));
        store_bytes(to, x.map(|x| i8x16_abs(x)));
        store_bytes(to.add(32), negative);
        -total([v128_and(x[0], negative[0]), v128_and(x[1], negative[1])])
    }
}

#[cfg(target_feature = "relaxed-simd")]
impl Dot for Q4 {
    const WEIGHT_BYTES: usize = 64;
    const ROW_BYTES: usize = 32;
    type Columns = v128;
    /// In 16 bits: eight times two products of at most 15 x 127.
    type Sum = v128;

    #[inline(always)]
    unsafe fn weights(from: *const u8, pair: usize, constants: Constants) -> [v128; 2] {
        nibbles(from, pair, constants)
    }

    #[inline(always)]
    unsafe fn columns(row: *const u8, step: usize) -> v128 {
        repeated(row.add(step * 4))
    }

    #[inline(always)]
    fn start() -> v128 {
        i16x8_splat(0)
    }

    #[inline(always)]
    fn add(sum: v128, weights: v128, x: v128, _constants: Constants) -> v128 {
        i16x8_add(sum, i16x8_relaxed_dot_i8x16_i7x16(x, weights))
    }

    #[inline(always)]
    fn finish(sum: v128, constants: Constants) -> v128 {
        i32x4_dot_i16x8(sum, constants[0])
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, x: [v128; 2]) -> i32 {
        store_bytes(to, x);
        -8 * total(x)
    }
}

/// Sums of outputs 0, 1 and of 2, 3, two lanes each.
#[cfg(not(target_feature = "relaxed-simd"))]
type Wide = [v128; 2];

#[cfg(not(target_feature = "relaxed-simd"))]
#[inline(always)]
fn add_wide(sum: Wide, weights: v128, x: v128) -> Wide {
    // The four columns are the same in every lane of x.
    let x = i16x8_extend_low_i8x16(x);
    let low = i32x4_dot_i16x8(i16x8_extend_low_i8x16(weights), x);
    let high = i32x4_dot_i16x8(i16x8_extend_high_i8x16(weights), x);
    [i32x4_add(sum[0], low), i32x4_add(sum[1], high)]
}

#[cfg(not(target_feature = "relaxed-simd"))]
#[inline(always)]
fn finish_wide(sum: Wide) -> v128 {
    let [low, high] = sum;
    let even = i32x4_shuffle::<0, 2, 4, 6>(low, high);
    i32x4_add(even, i32x4_shuffle::<1, 3, 5, 7>(low, high))
}

#[cfg(not(target_feature = "relaxed-simd"))]
macro_rules! plain_dot {
    ($name:ident, $weight_bytes:expr, $weights:expr, $correction:expr) => {
        impl Dot for $name {
            const WEIGHT_BYTES: usize = $weight_bytes;
            const ROW_BYTES: usize = 32;
            type Columns = v128;
            type Sum = Wide;

            #[inline(always)]
            unsafe fn weights(from: *const u8, pair: usize, constants: Constants) -> [v128; 2] {
                $weights(from, pair, constants)
            }

            #[inline(always)]
            unsafe fn columns(row: *const u8, step: usize) -> v128 {
                repeated(row.add(step * 4))
            }

            #[inline(always)]
            fn start() -> Wide {
                [i32x4_splat(0); 2]
            }

            #[inline(always)]
            fn add(sum: Wide, weights: v128, x: v128, _constants: Constants) -> Wide {
                add_wide(sum, weights, x)
            }

            #[inline(always)]
            fn finish(sum: Wide, _constants: Constants) -> v128 {
                finish_wide(sum)
            }

            #[inline(always)]
            unsafe fn store(to: *mut u8, x: [v128; 2]) -> i32 {
                store_bytes(to, x);
                $correction(x)
            }
        }
    };
}

#[cfg(not(target_feature = "relaxed-simd"))]
plain_dot!(Q8, 128, |from, pair, _| bytes(from, pair), |_| 0);
#[cfg(not(target_feature = "relaxed-simd"))]
plain_dot!(Q4, 64, |from, pair, constants| nibbles(from, pair, constants), |x| -8 * total(x));
