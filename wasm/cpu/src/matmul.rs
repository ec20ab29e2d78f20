//! y = W x for one row or many.
//!
//! Every output is one chain of four-lane multiply-adds over the columns in order, whatever path
//! computes it: a row's result is bitwise the same alone and in a batch. Speed comes from several
//! outputs and rows in flight.

use crate::formats::{Bf16, Decode, Format, Fp8, F16, F32, FP8_HALF_FACTOR};
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

/// Memory that a multiplication uses: 4 x the widest input of `panel`, and `packed` as large as
/// the largest input that is fp8 or mapped.
#[derive(Clone, Copy)]
pub struct Scratch {
    pub panel: *mut f32,
    pub packed: *mut f32,
}

/// outputs = W inputs for `count` rows. Inputs are read over whole blocks of 16 columns: what
/// follows the last column must be readable and finite wherever the row is. Writes outputs
/// [0, rows of W padded to 4).
pub unsafe fn project(
    weight: &Matrix,
    input: Rows,
    count: usize,
    output: Rows,
    how: Store,
    scratch: Scratch,
) {
    let scaled = weight.format == Format::Fp8;
    let input = if scaled || !input.map.is_null() {
        let factor = if scaled { FP8_HALF_FACTOR } else { 1.0 };
        pack(input, count, weight.blocks * 16, factor, scratch.packed)
    } else {
        input
    };
    match weight.format {
        Format::F32 => multiply::<F32>(weight, input, count, output, how, scratch.panel),
        Format::F16 => multiply::<F16>(weight, input, count, output, how, scratch.panel),
        Format::Bf16 => multiply::<Bf16>(weight, input, count, output, how, scratch.panel),
        Format::Fp8 => multiply::<Fp8>(weight, input, count, output, how, scratch.panel),
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

/// Copies rows side by side, times a power of two.
unsafe fn pack(input: Rows, count: usize, columns: usize, factor: f32, to: *mut f32) -> Rows {
    let factor = f32x4_splat(factor);
    for row in 0..count {
        let (from, to) = (input.row(row), to.add(row * columns));
        for i in (0..columns).step_by(4) {
            store(to.add(i), f32x4_mul(load(from.add(i)), factor));
        }
    }
    Rows::new(to, columns)
}

/// Rows computed together.
const TILE_ROWS: usize = 6;
/// Input bytes that stay in the second-level cache while the weights pass.
const INPUT_BLOCK_BYTES: usize = 192 * 1024;

unsafe fn multiply<D: Decode>(
    weight: &Matrix,
    input: Rows,
    count: usize,
    output: Rows,
    how: Store,
    panel: *mut f32,
) {
    let fit = INPUT_BLOCK_BYTES / (weight.blocks * 64);
    let step = (fit / TILE_ROWS * TILE_ROWS).max(2 * TILE_ROWS);
    let groups = pad4(weight.rows) / 4;
    for first in (0..count).step_by(step) {
        let last = count.min(first + step);
        for group in 0..groups {
            let group = Group::new::<D>(weight, group);
            if last - first == 1 {
                group.rows::<D, 1>(input, output, first, how);
                continue;
            }
            let group = group.unpacked::<D>(panel);
            let mut row = first;
            while row + TILE_ROWS <= last {
                group.rows::<F32, TILE_ROWS>(input, output, row, how);
                row += TILE_ROWS;
            }
            match last - row {
                5 => group.rows::<F32, 5>(input, output, row, how),
                4 => group.rows::<F32, 4>(input, output, row, how),
                3 => group.rows::<F32, 3>(input, output, row, how),
                2 => group.rows::<F32, 2>(input, output, row, how),
                1 => group.rows::<F32, 1>(input, output, row, how),
                _ => {}
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
        let segments = weight.blocks.div_ceil(weight.segment_blocks);
        let scales = weight.scales();
        Group {
            data: weight.data().add(group * weight.group_bytes()),
            scales: if D::SCALED { scales.add(group * segments * 4) } else { core::ptr::null() },
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
        for block in 0..self.blocks * 4 {
            let values = D::block(self.data.add(block * D::BLOCK_BYTES));
            for (i, value) in values.into_iter().enumerate() {
                store(panel.add(block * 16 + i * 4), value);
            }
        }
        Group { data: panel as *const u8, ..self }
    }

    /// R rows by four outputs.
    #[inline(always)]
    unsafe fn rows<D: Decode, const R: usize>(
        self,
        input: Rows,
        output: Rows,
        first: usize,
        how: Store,
    ) {
        let mut x: [*const f32; R] = core::array::from_fn(|r| input.row(first + r) as *const f32);
        let mut data = self.data;
        let mut total = [zero(); R];
        let mut left = self.blocks;
        let mut scales = self.scales;
        while left > 0 {
            let blocks = left.min(self.segment_blocks);
            let sums = segment::<D, R>(data, x, blocks);
            if scales.is_null() {
                total = sums;
            } else {
                for r in 0..R {
                    total[r] = fma(sums[r], load(scales), total[r]);
                }
                scales = scales.add(4);
            }
            data = data.add(blocks * 4 * D::BLOCK_BYTES);
            for pointer in &mut x {
                *pointer = pointer.add(blocks * 16);
            }
            left -= blocks;
        }
        for r in 0..R {
            let to = output.row(first + r).add(self.output);
            let value = if how == Store::Add { f32x4_add(load(to), total[r]) } else { total[r] };
            store(to, value);
        }
    }
}

/// Sums of R rows by four outputs over `blocks` blocks of columns: lane o of result r.
#[inline(always)]
unsafe fn segment<D: Decode, const R: usize>(
    data: *const u8,
    x: [*const f32; R],
    blocks: usize,
) -> [v128; R] {
    if R == 1 {
        return [four_sums::<D>(data, x[0], blocks); R];
    }
    let low = pair_sums::<R>(data as *const f32, x, blocks);
    let high = pair_sums::<R>((data as *const f32).add(32), x, blocks);
    core::array::from_fn(|r| merge(low[r], high[r]))
}

/// Sums of one row by four outputs, straight from the stored weights.
#[inline(always)]
unsafe fn four_sums<D: Decode>(mut data: *const u8, mut x: *const f32, blocks: usize) -> v128 {
    let mut sum = [zero(); 4];
    for _ in 0..blocks {
        for o in 0..4 {
            let w = D::block(data.add(o * D::BLOCK_BYTES));
            for i in 0..4 {
                sum[o] = fma(w[i], load(x.add(i * 4)), sum[o]);
            }
        }
        data = data.add(4 * D::BLOCK_BYTES);
        x = x.add(16);
    }
    merge(halves(sum[0], sum[1]), halves(sum[2], sum[3]))
}

/// `halves` of R rows by two outputs of an f32 group. Two outputs, because 2 R sums, two weights
/// and one input then fit into the 15 registers that the engine gives out.
#[inline(always)]
unsafe fn pair_sums<const R: usize>(
    mut data: *const f32,
    mut x: [*const f32; R],
    blocks: usize,
) -> [v128; R] {
    let mut sum = [[zero(); 2]; R];
    for _ in 0..blocks {
        for i in 0..4 {
            let (w0, w1) = (load(data.add(i * 4)), load(data.add(16 + i * 4)));
            for r in 0..R {
                let value = load(x[r].add(i * 4));
                sum[r][0] = fma(w0, value, sum[r][0]);
                sum[r][1] = fma(w1, value, sum[r][1]);
            }
        }
        data = data.add(64);
        for pointer in &mut x {
            *pointer = pointer.add(16);
        }
    }
    core::array::from_fn(|r| halves(sum[r][0], sum[r][1]))
}
