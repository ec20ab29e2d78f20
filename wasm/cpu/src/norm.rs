//! RMS norm, and the gated per-head form of it.

use crate::matmul::Rows;
use crate::simd::*;
use core::arch::wasm32::*;

/// out = weight * x / sqrt(mean(x^2) + epsilon), row by row. Rows of x are zero from `width` to the
/// next multiple of 4.
pub unsafe fn rms_norm(
    x: Rows,
    count: usize,
    width: usize,
    weight: *const f32,
    epsilon: f32,
    out: Rows,
) {
    for row in 0..count {
        let (from, to) = (x.row(row), out.row(row));
        let factor = f32x4_splat(rms_factor(from, width, epsilon));
        for i in (0..width).step_by(4) {
            let normed = f32x4_mul(load(from.add(i)), factor);
            store(to.add(i), f32x4_mul(normed, load(weight.add(i))));
        }
    }
}

/// 1 / sqrt(mean(x^2) + epsilon) of `width` values followed by zeros.
pub unsafe fn rms_factor(x: *const f32, width: usize, epsilon: f32) -> f32 {
    1.0 / (square_sum(x, width.div_ceil(4) * 4) / width as f32 + epsilon).sqrt()
}

/// Sum of the squares of `count` values.
pub unsafe fn square_sum(x: *const f32, count: usize) -> f32 {
    let whole = count / 4 * 4;
    let mut lanes = zero();
    for i in (0..whole).step_by(4) {
        let value = load(x.add(i));
        lanes = fma(value, value, lanes);
    }
    let mut total = sum(lanes);
    for i in whole..count {
        total += *x.add(i) * *x.add(i);
    }
    total
}
