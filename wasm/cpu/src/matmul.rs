//! y = W x for one row or many.
//!
//! Every output is one chain of four-lane multiply-adds over the columns in order, whatever path
//! computes it: a row's result is bitwise the same alone and in a batch. Speed comes from several
//! outputs and rows in flight.

use crate::formats::{Decode, F32};
use crate::matrix::Matrix;
use crate::memory::{pad16, pad4};
use crate::simd::*;
use core::arch::wasm32::*;

/// Rows of a matrix of activations: row r begins at `start + map[r] * stride` (map null: r).
#[derive(Clone, Copy)]
pub struct Rows {
    pub start: *mut f32,
    pub stride: usize,
    pub map: *const u32,
}

impl Rows {
    pub fn new(start: *mut f32, stride: usize) -> Rows {
        Rows { start, stride, map: core::ptr::null() }
    }

    /// The rows that `map` lists.
    pub fn at(self, map: *const u32) -> Rows {
        Rows { map, ..self }
    }

    #[inline(always)]
    pub unsafe fn row(&self, row: usize) -> *mut f32 {
        let index = if self.map.is_null() { row } else { *self.map.add(row) as usize };
        self.start.add(index * self.stride)
    }
}

/// What happens to the sums.
#[derive(Clone, Copy, PartialEq)]
pub enum Store {
    Assign,
    Add,
}

/// Rows as a kernel reads them: `stride` bytes each, listed by `map` (null: in order); for f32
/// kernels in tiles, see `pack`.
#[derive(Clone, Copy)]
pub struct Input {
    pub start: *const u8,
    pub stride: usize,
    pub map: *const u32,
}

impl Input {
    #[inline(always)]
    pub unsafe fn row(&self, row: usize) -> *const u8 {
        let index = if self.map.is_null() { row } else { *self.map.add(row) as usize };
        self.start.add(index * self.stride)
    }
}

/// Zeros between the last group of four outputs and the next multiple of 16: what another use of
/// the same memory left there might not be finite.
pub unsafe fn clear_pads(rows: Rows, count: usize, columns: usize) {
    for row in 0..count {
        for i in pad4(columns)..pad16(columns) {
            *rows.row(row).add(i) = 0.0;
        }
    }
}

/// Rows multiplied together. Four rows by two outputs keep the multiply-add units busy (8 chains of
/// latency 4 on 2 units) and fit into the engine's 15 registers with one pointer for all inputs.
const TILE_ROWS: usize = 4;
/// Packed input bytes that stay in the second-level cache while the weights pass.
const INPUT_BLOCK_BYTES: usize = 192 * 1024;

/// Groups [from, to) of four outputs for `count` packed rows. `panel`: four of the input's rows.
pub unsafe fn multiply_range<D: Decode>(
    weight: &Matrix,
    input: Input,
    count: usize,
    output: Rows,
    how: Store,
    panel: *mut f32,
    (from, to): (usize, usize),
) {
    let width = weight.blocks * 16;
    let packed = input.start as *const f32;
    if count == 1 {
        for group in from..to {
            Group::new::<D>(weight, group).one_row::<D>(packed, output.row(0), how);
        }
        return;
    }
    let fit = INPUT_BLOCK_BYTES / (width * 4);
    let step = (fit / TILE_ROWS * TILE_ROWS).max(2 * TILE_ROWS);
    for first in (0..count).step_by(step) {
        let last = count.min(first + step);
        for group in from..to {
            let group = Group::new::<D>(weight, group).unpacked::<D>(panel);
            for row in (first..last).step_by(TILE_ROWS) {
                let x = packed.add(row * width);
                match last - row {
                    1 => group.rows::<1>(x, output, row, how),
                    2 => group.rows::<2>(x, output, row, how),
                    3 => group.rows::<3>(x, output, row, how),
                    _ => group.rows::<TILE_ROWS>(x, output, row, how),
                }
            }
        }
    }
}

/// Packs rows [from, to) of `count` for the f32 kernels, times a power of two: tiles of four rows
/// (the last may have fewer), a tile interleaved by vectors of four columns: [width / 4][rows][4].
/// `from` is a multiple of 4. Reads whole blocks of 16 columns: what follows the last column must
/// be readable and finite wherever the row is.
pub unsafe fn pack(
    input: Rows,
    count: usize,
    (from, to): (usize, usize),
    width: usize,
    factor: f32,
    packed: *mut f32,
) {
    let factor = f32x4_splat(factor);
    for first in (from..to).step_by(TILE_ROWS) {
        let rows = TILE_ROWS.min(count - first);
        let tile = packed.add(first * width);
        for r in 0..rows {
            let from = input.row(first + r);
            for i in (0..width).step_by(4) {
                store(tile.add(i * rows + r * 4), f32x4_mul(load(from.add(i)), factor));
            }
        }
    }
}

/// Four outputs' weights.
#[derive(Clone, Copy)]
struct Group {
    data: *const u8,
    /// [segment][4], or null.
    scales: *const f32,
    blocks: usize,
    segment_blocks: usize,
    /// First of the four outputs.
    output: usize,
}

impl Group {
    unsafe fn new<D: Decode>(weight: &Matrix, group: usize) -> Group {
        let scales = weight.scales();
        Group {
            data: weight.data().add(group * weight.group_bytes()),
            scales: if D::SCALED { scales.add(group * weight.segments() * 4) } else { scales },
            blocks: weight.blocks,
            segment_blocks: weight.segment_blocks,
            output: group * 4,
        }
    }

    /// The same weights as f32 in `panel`, for use by many rows.
    #[inline(always)]
    unsafe fn unpacked<D: Decode>(self, panel: *mut f32) -> Group {
        if D::BLOCK_BYTES == F32::BLOCK_BYTES {
            return self;
        }
        let masks = D::masks();
        for block in 0..self.blocks {
            for o in 0..4 {
                let from = self.data.add((block * 4 + o) * D::BLOCK_BYTES);
                let values = D::block(from, masks);
                for i in 0..4 {
                    store(panel.add(block * 64 + i * 16 + o * 4), values[i]);
                }
            }
        }
        Group { data: panel as *const u8, ..self }
    }

    /// R packed rows by the four outputs, from f32 weights.
    #[inline(always)]
    unsafe fn rows<const R: usize>(
        mut self,
        mut x: *const f32,
        output: Rows,
        first: usize,
        how: Store,
    ) {
        let mut total = [zero(); R];
        while self.blocks > 0 {
            let blocks = self.blocks.min(self.segment_blocks);
            let sums = segment::<R>(self.data as *const f32, x, blocks);
            total = accumulate(total, sums, self.scales);
            self = self.behind(blocks, blocks * 4 * F32::BLOCK_BYTES);
            x = x.add(blocks * 16 * R);
        }
        for r in 0..R {
            put(output.row(first + r).add(self.output), total[r], how);
        }
    }

    /// One row by the four outputs.
    #[inline(always)]
    unsafe fn one_row<D: Decode>(mut self, mut x: *const f32, output: *mut f32, how: Store) {
        let mut total = [zero()];
        while self.blocks > 0 {
            let blocks = self.blocks.min(self.segment_blocks);
            let sums = one_row_sums::<D>(self.data, x, blocks);
            total = accumulate(total, [sums], self.scales);
            self = self.behind(blocks, blocks * 4 * D::BLOCK_BYTES);
            x = x.add(blocks * 16);
        }
        put(output.add(self.output), total[0], how);
    }

    /// What is left behind the first segment.
    #[inline(always)]
    unsafe fn behind(self, blocks: usize, bytes: usize) -> Group {
        let scales = self.scales;
        Group {
            data: self.data.add(bytes),
            scales: if scales.is_null() { scales } else { scales.add(4) },
            blocks: self.blocks - blocks,
            ..self
        }
    }
}

/// total + sums * scales; without scales there is one segment, whose sums are the total.
#[inline(always)]
unsafe fn accumulate<const N: usize>(
    total: [v128; N],
    sums: [v128; N],
    scales: *const f32,
) -> [v128; N] {
    if scales.is_null() {
        return sums;
    }
    let scales = load(scales);
    core::array::from_fn(|i| fma(sums[i], scales, total[i]))
}

#[inline(always)]
pub unsafe fn put(to: *mut f32, value: v128, how: Store) {
    store(to, if how == Store::Add { f32x4_add(load(to), value) } else { value });
}

/// Sums of R packed rows by four outputs over `blocks` blocks of columns: lane o of result r.
#[inline(always)]
unsafe fn segment<const R: usize>(data: *const f32, x: *const f32, blocks: usize) -> [v128; R] {
    if R <= 2 {
        // Few rows: all four outputs, for enough chains in flight.
        let sums = tile::<R, 4>(data, x, blocks);
        return sums.map(|sums| merge(halves(sums[0], sums[1]), halves(sums[2], sums[3])));
    }
    let low = tile::<R, 2>(data, x, blocks).map(|sums| halves(sums[0], sums[1]));
    let high = tile::<R, 2>(data.add(8), x, blocks).map(|sums| halves(sums[0], sums[1]));
    core::array::from_fn(|r| merge(low[r], high[r]))
}

/// Four-lane sums of R packed rows by O outputs of an f32 group.
///
/// Each sum gets one term an iteration: unrolled, the compiler would nest the terms of a sum, hold
/// all their inputs at once and run out of registers.
#[inline(always)]
unsafe fn tile<const R: usize, const O: usize>(
    mut data: *const f32,
    mut x: *const f32,
    blocks: usize,
) -> [[v128; O]; R] {
    let mut sum = [[zero(); O]; R];
    for _ in 0..blocks * 4 {
        let mut w = [zero(); O];
        for o in 0..O {
            w[o] = load(data.add(o * 4));
        }
        for r in 0..R {
            let value = load(x.add(r * 4));
            for o in 0..O {
                sum[r][o] = fma(w[o], value, sum[r][o]);
            }
        }
        data = data.add(16);
        x = x.add(4 * R);
    }
    sum
}

/// Sums of one row by the four outputs of a group, straight from the stored weights.
#[inline(always)]
unsafe fn one_row_sums<D: Decode>(mut data: *const u8, mut x: *const f32, blocks: usize) -> v128 {
    let masks = D::masks();
    let mut sum = [zero(); 4];
    for _ in 0..blocks {
        for o in 0..4 {
            let w = D::block(data.add(o * D::OUTPUT_BYTES), masks);
            for i in 0..4 {
                sum[o] = fma(w[i], load(x.add(i * 4)), sum[o]);
            }
        }
        data = data.add(4 * D::BLOCK_BYTES);
        x = x.add(16);
    }
    merge(halves(sum[0], sum[1]), halves(sum[2], sum[3]))
}
