//! One group of 32 values and its scale.
//!
//! All arithmetic is f32 in a fixed order (`tests/reference/quantize.ts` has the same one).

use crate::half;
use std::arch::wasm32::*;

/// Elements that share a scale.
pub const GROUP: usize = 32;
const LANES: usize = 4;
const VECTORS: usize = GROUP / LANES;

/// Where q4 tries to put a group's largest element: beyond -8, which cuts it off and gives the rest
/// a finer step, down to -7. On normal values these four take the root mean square error from 9.5 %
/// (largest to 7) or 8.5 % (largest to -8) to 8.15 %; nineteen from -7.1 to -8.9 reach 8.10 %.
const Q4_EXTREMES: [f32; 4] = [-8.8, -8.2, -7.6, -7.0];
/// Groups whose largest magnitude is below this are stored as zeros: their f16 scale would have no
/// more than a few bits.
const Q4_SMALLEST: f32 = 1.0 / (1 << 20) as f32;
/// Beyond this an f16 can't hold any scale that is tried.
const Q4_LARGEST: f32 = 65504.0 * 6.0;

#[derive(Clone, Copy, PartialEq)]
pub enum GroupFormat {
    Q8,
    Q4,
}

impl GroupFormat {
    pub fn group_bytes(self) -> usize {
        match self {
            GroupFormat::Q8 => GROUP,
            GroupFormat::Q4 => GROUP / 2,
        }
    }
}

/// Rounds 32 values to `elements` and returns the f16 bits of their scale; None when a value isn't
/// finite or the scale is too large for f16.
#[inline]
pub fn quantize_group(values: &[f32], format: GroupFormat, elements: &mut [u8]) -> Option<u16> {
    let mut vectors = [f32x4_splat(0.0); VECTORS];
    for (vector, four) in vectors.iter_mut().zip(values.chunks_exact(LANES)) {
        // SAFETY: 16 readable bytes; a vector load needs no alignment.
        *vector = unsafe { v128_load(four.as_ptr().cast()) };
    }
    let largest = largest_magnitude(&vectors);
    if largest >= f32::INFINITY || largest.is_nan() {
        return None;
    }
    match format {
        GroupFormat::Q8 => quantize_q8(&vectors, largest, elements),
        GroupFormat::Q4 => quantize_q4(&vectors, largest, elements),
    }
}

/// By bits, which are in the order of the magnitudes, with NaN above infinity.
fn largest_magnitude(vectors: &[v128; VECTORS]) -> f32 {
    let mask = u32x4_splat(0x7fff_ffff);
    let mut most = u32x4_splat(0);
    for &vector in vectors {
        most = u32x4_max(most, v128_and(vector, mask));
    }
    most = u32x4_max(most, i32x4_shuffle::<2, 3, 0, 1>(most, most));
    most = u32x4_max(most, i32x4_shuffle::<1, 0, 3, 2>(most, most));
    f32::from_bits(u32x4_extract_lane::<0>(most))
}

/// The largest becomes 127.
fn quantize_q8(vectors: &[v128; VECTORS], largest: f32, elements: &mut [u8]) -> Option<u16> {
    let bits = half::from_f32(largest / 127.0);
    if bits == half::INFINITY {
        return None;
    }
    if bits == 0 {
        elements.fill(0);
        return Some(0);
    }
    let inverse = f32x4_splat(1.0 / half::to_f32(bits));
    let (low, high) = (f32x4_splat(-127.0), f32x4_splat(127.0));
    let mut rounded = *vectors;
    for vector in &mut rounded {
        *vector = clamp(f32x4_nearest(f32x4_mul(*vector, inverse)), low, high);
    }
    let bytes = to_bytes(&rounded);
    store(&mut elements[..16], bytes[0]);
    store(&mut elements[16..], bytes[1]);
    Some(bits)
}

/// Of a few steps the one whose integers q allow the least sum of squared errors, which is reached
/// with the scale sum(v q) / sum(q q) and is smaller the larger sum(v q)^2 / sum(q q) is.
fn quantize_q4(vectors: &[v128; VECTORS], largest: f32, elements: &mut [u8]) -> Option<u16> {
    if largest < Q4_SMALLEST {
        elements.fill(0x88);
        return Some(0);
    }
    if largest > Q4_LARGEST {
        return None;
    }
    let positive = vectors.iter().any(|&v| v128_any_true(f32x4_eq(v, f32x4_splat(largest))));
    let extreme = if positive { largest } else { -largest };
    let (low, high) = (f32x4_splat(-8.0), f32x4_splat(7.0));
    let unit = 1.0 / extreme;
    let mut best = *vectors;
    let (mut best_product, mut best_square) = (0.0, 1.0);
    for target in Q4_EXTREMES {
        let inverse = f32x4_splat(target * unit);
        let mut rounded = *vectors;
        let mut products = f32x4_splat(0.0);
        let mut squares = f32x4_splat(0.0);
        for vector in &mut rounded {
            let value = *vector;
            *vector = clamp(f32x4_nearest(f32x4_mul(value, inverse)), low, high);
            products = f32x4_add(products, f32x4_mul(value, *vector));
            squares = f32x4_add(squares, f32x4_mul(*vector, *vector));
        }
        let product = sum(products);
        let square = sum(squares);
        // product^2 / square > best_product^2 / best_square, without divisions.
        if product * product * best_square > best_product * best_product * square {
            (best, best_product, best_square) = (rounded, product, square);
        }
    }
    let bytes = to_bytes(&best);
    store(elements, to_nibbles(bytes));
    Some(half::from_f32(best_product / best_square))
}

/// For a vector without NaN.
fn clamp(vector: v128, low: v128, high: v128) -> v128 {
    f32x4_pmin(f32x4_pmax(vector, low), high)
}

fn sum(vector: v128) -> f32 {
    let pairs = f32x4_add(vector, i32x4_shuffle::<1, 0, 3, 2>(vector, vector));
    f32x4_extract_lane::<0>(pairs) + f32x4_extract_lane::<2>(pairs)
}

/// Whole numbers from -128 to 127 as signed bytes.
fn to_bytes(vectors: &[v128; VECTORS]) -> [v128; 2] {
    let integers = vectors.map(|vector| i32x4_trunc_sat_f32x4(vector));
    let half = |i: usize| {
        i8x16_narrow_i16x8(
            i16x8_narrow_i32x4(integers[i], integers[i + 1]),
            i16x8_narrow_i32x4(integers[i + 2], integers[i + 3]),
        )
    };
    [half(0), half(4)]
}

/// Signed bytes from -8 to 7 as nibbles q + 8, the first of two in the low half.
fn to_nibbles(bytes: [v128; 2]) -> v128 {
    let pairs = bytes.map(|bytes| {
        let codes = i8x16_add(bytes, i8x16_splat(8));
        v128_and(v128_or(codes, u16x8_shr(codes, 4)), u16x8_splat(0xff))
    });
    u8x16_narrow_i16x8(pairs[0], pairs[1])
}

fn store(bytes: &mut [u8], vector: v128) {
    let bytes: &mut [u8; 16] = bytes.try_into().expect("16 bytes");
    // SAFETY: 16 writable bytes; a vector store needs no alignment.
    unsafe { v128_store(bytes.as_mut_ptr().cast(), vector) }
}
