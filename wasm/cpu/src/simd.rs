//! Four-lane f32 helpers and elementary functions.
//!
//! Loads and stores need no alignment. Every function gives a lane the same result whatever the
//! other lanes hold.

use core::arch::wasm32::*;

/// a * b + c: fused where the relaxed build runs, two roundings otherwise.
#[inline(always)]
pub fn fma(a: v128, b: v128, c: v128) -> v128 {
    #[cfg(target_feature = "relaxed-simd")]
    return f32x4_relaxed_madd(a, b, c);
    #[cfg(not(target_feature = "relaxed-simd"))]
    f32x4_add(f32x4_mul(a, b), c)
}

#[inline(always)]
pub unsafe fn load(from: *const f32) -> v128 {
    v128_load(from as *const v128)
}

#[inline(always)]
pub unsafe fn store(to: *mut f32, value: v128) {
    v128_store(to as *mut v128, value)
}

/// One value in all lanes.
#[inline(always)]
pub unsafe fn splat(from: *const f32) -> v128 {
    v128_load32_splat(from as *const u32)
}

pub const fn zero() -> v128 {
    f32x4(0.0, 0.0, 0.0, 0.0)
}

/// The sums of lanes (0 + 2) and (1 + 3): of a in lanes 0 and 2, of b in lanes 1 and 3.
#[inline(always)]
pub fn halves(a: v128, b: v128) -> v128 {
    f32x4_add(i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b))
}

/// From `halves` of (a, b) and of (c, d): the sums of all lanes of a, b, c and d.
#[inline(always)]
pub fn merge(ab: v128, cd: v128) -> v128 {
    f32x4_add(i32x4_shuffle::<0, 1, 4, 5>(ab, cd), i32x4_shuffle::<2, 3, 6, 7>(ab, cd))
}

/// The sum of the lanes, (0 + 2) + (1 + 3).
#[inline(always)]
pub fn sum(a: v128) -> f32 {
    let pairs = f32x4_add(a, i32x4_shuffle::<2, 3, 0, 1>(a, a));
    f32x4_extract_lane::<0>(pairs) + f32x4_extract_lane::<1>(pairs)
}

/// e^x to about 1 unit in the last place; subnormal results, infinities and NaN come out right.
#[inline(always)]
pub fn exp(x: v128) -> v128 {
    let x = f32x4_min(f32x4_max(x, f32x4_splat(-110.0)), f32x4_splat(100.0));
    let n = f32x4_nearest(f32x4_mul(x, f32x4_splat(core::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first with few bits, so that n times it is exact.
    let r = fma(n, f32x4_splat(-0.693_359_4), x);
    let r = fma(n, f32x4_splat(2.121_944_4e-4), r);
    let mut p = f32x4_splat(1.987_569_1e-4);
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = fma(p, r, f32x4_splat(coefficient));
    }
    let y = f32x4_add(fma(p, f32x4_mul(r, r), r), f32x4_splat(1.0));
    // 2^n in two factors, because one can't reach the subnormal results.
    let exponent = i32x4_trunc_sat_f32x4(n);
    let half = i32x4_shr(exponent, 1);
    let rest = i32x4_sub(exponent, half);
    f32x4_mul(f32x4_mul(y, power_of_two(half)), power_of_two(rest))
}

#[inline(always)]
fn power_of_two(exponent: v128) -> v128 {
    i32x4_shl(i32x4_add(exponent, i32x4_splat(127)), 23)
}

/// ln x of normal x > 0 to about 1 unit in the last place (relative also near 1).
#[inline(always)]
fn ln(x: v128) -> v128 {
    let exponent = i32x4_sub(i32x4_shr(x, 23), i32x4_splat(126));
    let fraction = v128_or(v128_and(x, i32x4_splat(0x007f_ffff)), f32x4_splat(0.5));
    // fraction in [sqrt(1/2), sqrt(2)).
    let small = f32x4_lt(fraction, f32x4_splat(core::f32::consts::FRAC_1_SQRT_2));
    let exponent = f32x4_convert_i32x4(i32x4_add(exponent, small));
    let fraction = f32x4_add(fraction, v128_and(fraction, small));
    let f = f32x4_sub(fraction, f32x4_splat(1.0));
    let mut p = f32x4_splat(7.037_684e-2);
    for coefficient in [
        -0.115_146_1,
        0.116_769_99,
        -0.124_201_41,
        0.142_493_23,
        -0.166_680_57,
        0.200_007_15,
        -0.249_999_94,
        0.333_333_3,
    ] {
        p = fma(p, f, f32x4_splat(coefficient));
    }
    let square = f32x4_mul(f, f);
    let tail = f32x4_mul(f32x4_mul(p, f), square);
    let tail = fma(exponent, f32x4_splat(-2.121_944_4e-4), tail);
    let tail = fma(square, f32x4_splat(-0.5), tail);
    fma(exponent, f32x4_splat(0.693_359_4), f32x4_add(f, tail))
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: v128) -> v128 {
    let one = f32x4_splat(1.0);
    f32x4_div(one, f32x4_add(one, exp(f32x4_neg(x))))
}

/// x sigmoid(x).
#[inline(always)]
pub fn silu(x: v128) -> v128 {
    f32x4_div(x, f32x4_add(f32x4_splat(1.0), exp(f32x4_neg(x))))
}

/// ln(1 + e^x), and x itself for x > 20. Relative accuracy holds for very negative x, too: the
/// rounding of 1 + e^x is added back.
#[inline(always)]
pub fn softplus(x: v128) -> v128 {
    let one = f32x4_splat(1.0);
    let limit = f32x4_splat(20.0);
    let u = exp(f32x4_min(x, limit));
    let w = f32x4_add(u, one);
    let lost = f32x4_div(f32x4_sub(u, f32x4_sub(w, one)), w);
    v128_bitselect(x, f32x4_add(ln(w), lost), f32x4_gt(x, limit))
}

/// Applies `f` to `count` values in place; lanes past the end are computed on zeros and dropped.
#[inline(always)]
pub unsafe fn map(values: *mut f32, count: usize, f: impl Fn(v128) -> v128) {
    let whole = count / 4 * 4;
    for i in (0..whole).step_by(4) {
        store(values.add(i), f(load(values.add(i))));
    }
    if whole < count {
        let mut rest = [0f32; 4];
        core::ptr::copy_nonoverlapping(values.add(whole), rest.as_mut_ptr(), count - whole);
        store(rest.as_mut_ptr(), f(load(rest.as_ptr())));
        core::ptr::copy_nonoverlapping(rest.as_ptr(), values.add(whole), count - whole);
    }
}
