//! f16 as bits: round to nearest, ties to even.

use std::arch::wasm32::*;

/// Bits of infinity, which are also all bits of the exponent.
pub const INFINITY: u16 = 0x7c00;

/// Nearest f16; what is too large becomes infinity and NaN stays one.
pub fn from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    // 65520, from which on the nearest is 65536.
    if magnitude >= 0x477f_f000 {
        return sign | INFINITY;
    }
    // 2^-14, the smallest normal number.
    if magnitude < 0x3880_0000 {
        // Adding 1/2 leaves the multiple of 2^-24 in the lowest bits, rounded by the addition.
        let sum = f32::from_bits(magnitude) + 0.5;
        return sign | (sum.to_bits() - 0.5_f32.to_bits()) as u16;
    }
    let odd = (magnitude >> 13) & 1;
    let rounded = magnitude + 0xfff + odd - ((127 - 15) << 23);
    sign | (rounded >> 13) as u16
}

/// Exact.
pub fn to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let sign = u32::from(bits & 0x8000) << 16;
    // The exponent's bias is 15 and not 127; this also scales subnormal numbers right.
    let value = f32::from_bits(magnitude) * f32::from_bits((127 + 127 - 15) << 23);
    let value = if magnitude >= u32::from(INFINITY) << 13 {
        f32::from_bits(magnitude | 0x7f80_0000)
    } else {
        value
    };
    f32::from_bits(value.to_bits() | sign)
}

/// A row of values; as `from_f32`, eight at once where all are normal in f16.
pub fn row_from_f32(values: &[f32], row: &mut [u16]) {
    let (eights, rest) = values.as_chunks::<8>();
    let (targets, target_rest) = row.as_chunks_mut::<8>();
    for (eight, target) in eights.iter().zip(targets) {
        // SAFETY: 32 readable bytes; vector loads need no alignment.
        let vectors = unsafe {
            [v128_load(eight.as_ptr().cast()), v128_load(eight[4..].as_ptr().cast())]
        };
        if vectors.iter().all(|&vector| u32x4_all_true(is_normal(vector))) {
            let bits = u16x8_narrow_i32x4(round_normal(vectors[0]), round_normal(vectors[1]));
            // SAFETY: 16 writable bytes; a vector store needs no alignment.
            unsafe { v128_store(target.as_mut_ptr().cast(), bits) };
        } else {
            *target = eight.map(from_f32);
        }
    }
    for (bits, &value) in target_rest.iter_mut().zip(rest) {
        *bits = from_f32(value);
    }
}

/// Lanes from 2^-14 to below 65520 in magnitude.
fn is_normal(vector: v128) -> v128 {
    let magnitude = v128_and(vector, u32x4_splat(0x7fff_ffff));
    let large = u32x4_ge(magnitude, u32x4_splat(0x3880_0000));
    v128_and(large, u32x4_lt(magnitude, u32x4_splat(0x477f_f000)))
}

/// f16 bits of normal lanes.
fn round_normal(vector: v128) -> v128 {
    let magnitude = v128_and(vector, u32x4_splat(0x7fff_ffff));
    let odd = v128_and(u32x4_shr(magnitude, 13), u32x4_splat(1));
    let bias = u32x4_splat(0xfff_u32.wrapping_sub((127 - 15) << 23));
    let rounded = u32x4_shr(u32x4_add(magnitude, u32x4_add(odd, bias)), 13);
    let sign = v128_and(u32x4_shr(vector, 16), u32x4_splat(0x8000));
    v128_or(rounded, sign)
}
