//! y = W x for q8 and q4: activations rounded to int8 in groups of 32 columns, exact integer dot
//! products of a group, and f32 sums over the groups in order. A row's result has the same bits in
//! any company.

use crate::dot::{constants, pairs, Dot};
use crate::formats::GROUP;
use crate::matmul::{put, Input, Rows, Store};
use crate::matrix::Matrix;
use crate::simd::*;
use core::arch::wasm32::*;

/// Bytes behind a group's activations: its scale (f32) and its correction (i32).
const TAIL_BYTES: usize = 8;
/// Adding it to a small f32 rounds that to a whole number, ties to even, in the low bits.
const ROUNDING: f32 = 12_582_912.0;
/// 2^-100: groups of smaller activations count as 0, so that no scale is near the end of f32.
const NOTHING: f32 = f32::from_bits((127 - 100) << 23);
/// Input bytes that stay in the second-level cache while the weights pass.
const INPUT_BLOCK_BYTES: usize = 192 * 1024;
/// Rows multiplied together.
const TILE_ROWS: usize = 4;

/// Bytes of one row of `columns` rounded activations.
pub fn row_bytes<D: Dot>(columns: usize) -> usize {
    columns.div_ceil(GROUP) * (D::ROW_BYTES + TAIL_BYTES)
}

/// Rounds `columns` activations: each group to multiples of its largest magnitude / 127. A group
/// with a NaN or an infinity gets a scale that makes every sum NaN.
pub unsafe fn round_row<D: Dot>(x: *const f32, columns: usize, mut to: *mut u8) {
    for first in (0..columns).step_by(GROUP) {
        if first + GROUP <= columns {
            round_group::<D>(x.add(first), to);
        } else {
            let mut rest = [0f32; GROUP];
            core::ptr::copy_nonoverlapping(x.add(first), rest.as_mut_ptr(), columns - first);
            round_group::<D>(rest.as_ptr(), to);
        }
        to = to.add(D::ROW_BYTES + TAIL_BYTES);
    }
}

#[inline(always)]
unsafe fn round_group<D: Dot>(x: *const f32, to: *mut u8) {
    // Bits of magnitudes are ordered like the magnitudes, NaN above all.
    let magnitude = u32x4_splat(0x7fff_ffff);
    let mut largest = u32x4_splat(0);
    for i in 0..8 {
        largest = u32x4_max(largest, v128_and(load(x.add(i * 4)), magnitude));
    }
    largest = u32x4_max(largest, i32x4_shuffle::<2, 3, 0, 1>(largest, largest));
    largest = u32x4_max(largest, i32x4_shuffle::<1, 0, 3, 2>(largest, largest));
    let largest = f32x4_extract_lane::<0>(largest);
    let scale = if largest < NOTHING { 0.0 } else { largest / 127.0 };
    let inverse = f32x4_splat(if scale > 0.0 { 1.0 / scale } else { 0.0 });
    let rounding = f32x4_splat(ROUNDING);
    let integers = |i: usize| {
        let shifted = f32x4_add(f32x4_mul(load(x.add(i * 4)), inverse), rounding);
        i32x4_sub(shifted, rounding)
    };
    let shorts = |i: usize| i16x8_narrow_i32x4(integers(i), integers(i + 1));
    let bytes = |i: usize| i8x16_narrow_i16x8(shorts(i), shorts(i + 2));
    let correction = D::store(to, [bytes(0), bytes(4)]);
    (to.add(D::ROW_BYTES) as *mut f32).write_unaligned(scale);
    (to.add(D::ROW_BYTES + 4) as *mut i32).write_unaligned(correction);
}

/// Groups of four outputs, and where the next group's data and scales are.
struct Outputs {
    data: *const u8,
    data_step: usize,
    scales: *const f32,
    scale_step: usize,
    groups: usize,
}

/// Groups [from, to) of four outputs for `count` rows.
pub unsafe fn multiply_range<D: Dot>(
    weight: &Matrix,
    input: Input,
    count: usize,
    output: Rows,
    how: Store,
    (from, to): (usize, usize),
) {
    let fit = INPUT_BLOCK_BYTES / input.stride;
    let step = (fit / TILE_ROWS * TILE_ROWS).max(2 * TILE_ROWS);
    let groups = weight.blocks / 2;
    for first in (0..count).step_by(step) {
        let last = count.min(first + step);
        let mut group = from;
        while group < to {
            let outputs = Outputs {
                data: weight.data().add(group * weight.group_bytes()),
                data_step: weight.group_bytes(),
                scales: weight.scales().add(group * groups * 4),
                scale_step: groups * 4,
                groups,
            };
            let tile = Tile { outputs, input, output, how, output_start: group * 4 };
            let wide = if last - first == 1 { 4 } else { 2 };
            if group + wide > to {
                tile.all_rows::<D, 1>(first, last);
                group += 1;
                continue;
            }
            if last - first == 1 {
                tile.rows::<D, 1, 4>(first);
            } else {
                tile.all_rows::<D, 2>(first, last);
            }
            group += wide;
        }
    }
}

struct Tile {
    outputs: Outputs,
    input: Input,
    output: Rows,
    how: Store,
    /// First of the outputs.
    output_start: usize,
}

impl Tile {
    #[inline(always)]
    unsafe fn all_rows<D: Dot, const G: usize>(&self, first: usize, last: usize) {
        for row in (first..last).step_by(TILE_ROWS) {
            match last - row {
                1 => self.rows::<D, 1, G>(row),
                2 => self.rows::<D, 2, G>(row),
                3 => self.rows::<D, 3, G>(row),
                _ => self.rows::<D, TILE_ROWS, G>(row),
            }
        }
    }

    /// R rows by G groups of outputs.
    #[inline(always)]
    unsafe fn rows<D: Dot, const R: usize, const G: usize>(&self, first: usize) {
        let x = core::array::from_fn(|r| self.input.row(first + r));
        let total = sums::<D, R, G>(&self.outputs, x);
        for r in 0..R {
            let to = self.output.row(first + r).add(self.output_start);
            for g in 0..G {
                put(to.add(g * 4), total[r][g], self.how);
            }
        }
    }
}

#[inline(always)]
unsafe fn sums<D: Dot, const R: usize, const G: usize>(
    outputs: &Outputs,
    mut x: [*const u8; R],
) -> [[v128; G]; R] {
    let (constants, pairs) = (constants(), pairs());
    let mut total = [[zero(); G]; R];
    let mut data: [*const u8; G] =
        core::array::from_fn(|g| outputs.data.add(g * outputs.data_step));
    let mut scales = outputs.scales;
    for _ in 0..outputs.groups {
        let mut sum = [[D::start(); G]; R];
        for pair in 0..pairs {
            let mut weights = [[zero(); 2]; G];
            for g in 0..G {
                weights[g] = D::weights(data[g], pair, constants);
            }
            for half in 0..2 {
                for r in 0..R {
                    let columns = D::columns(x[r], pair * 2 + half);
                    for g in 0..G {
                        sum[r][g] = D::add(sum[r][g], weights[g][half], columns, constants);
                    }
                }
            }
        }
        for r in 0..R {
            let scale = splat(x[r].add(D::ROW_BYTES) as *const f32);
            let correction = splat(x[r].add(D::ROW_BYTES + 4) as *const f32);
            for g in 0..G {
                let exact = i32x4_add(D::finish(sum[r][g], constants), correction);
                let scale = f32x4_mul(scale, load(scales.add(g * outputs.scale_step)));
                total[r][g] = fma(f32x4_convert_i32x4(exact), scale, total[r][g]);
            }
            x[r] = x[r].add(D::ROW_BYTES + TAIL_BYTES);
        }
        for g in 0..G {
            data[g] = data[g].add(D::WEIGHT_BYTES);
        }
        scales = scales.add(4);
    }
    total
}
