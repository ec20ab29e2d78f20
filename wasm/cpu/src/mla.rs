//! The multi-head latent attention mixer, without positions, in the absorbed form:
//!
//!   q~ = Kᵀ q_nope;  score = (q~ . c + q_shared . p) / sqrt(nope + shared);  o = V (softmax . c)
//!
//! Attention runs over tiles of 32 positions with an online softmax. Tiles begin at multiples of
//! 32, so a row's sums are made in the same order whatever the chunking and the pages.

use crate::latents::{Latents, TILE};
use crate::matmul::{project, Rows, Scratch, Store};
use crate::matrix::Matrix;
use crate::memory::{pad16, Buffer};
use crate::norm::rms_norm;
use crate::shape::{Mla, Plan, Sequence};
use crate::simd::*;
use core::arch::wasm32::*;

pub struct MlaLayer {
    pub q: Matrix,
    pub kv_a: Matrix,
    pub kv_norm: Buffer,
    /// Per head, from kv_b: its key rows transposed, [latent, nope].
    pub keys: Vec<Matrix>,
    /// Per head, from kv_b: its value rows, [value, latent].
    pub values: Vec<Matrix>,
    pub o: Matrix,
    pub latents: Latents,
}

/// Rows of a step that pass over the context together.
const ROW_BLOCK: usize = 16;

/// Activations of a step.
pub struct MlaScratch {
    /// [rows][q row]: 16 floats more than heads x (nope + shared), so that a head can be read over
    /// whole blocks without touching the next row.
    pub q: Buffer,
    /// q~ | q_shared: [rows][heads][pad16(width)].
    pub absorbed: Buffer,
    /// [rows][pad16(width)]: latent | shared key before the cache.
    pub latent: Buffer,
    /// Weighted latents of [rows][heads][pad16(latent)].
    pub mixed: Buffer,
    /// [rows][output row]: 16 floats more than heads x value, into which the last head's zero pad
    /// may reach.
    pub o: Buffer,
    /// Scores of a block of rows: [ROW_BLOCK x heads][TILE].
    pub scores: Buffer,
    /// Largest score and sum of a block of rows: [ROW_BLOCK x heads][2].
    pub softmax: Buffer,
    /// One latent on its own, because the norm works on whole lanes.
    pub normed: Buffer,
}

impl MlaScratch {
    /// Floats of every buffer for `rows` rows, in the order of the fields.
    pub fn floats(shape: &Mla, rows: usize) -> [u64; 8] {
        let block = (ROW_BLOCK * shape.heads) as u64;
        let heads = |width: usize| rows as u64 * shape.heads as u64 * pad16(width) as u64;
        [
            rows as u64 * query_stride(shape) as u64,
            heads(shape.width()),
            rows as u64 * pad16(shape.width()) as u64,
            heads(shape.latent),
            rows as u64 * output_stride(shape) as u64,
            block * TILE as u64,
            block * 2,
            pad16(shape.latent) as u64,
        ]
    }

    pub fn new(shape: &Mla, rows: usize) -> Result<MlaScratch, String> {
        let floats = Self::floats(shape, rows);
        let mut buffers = floats.iter().map(|&count| Buffer::floats(count));
        let mut next = || buffers.next().unwrap();
        Ok(MlaScratch {
            q: next()?,
            absorbed: next()?,
            latent: next()?,
            mixed: next()?,
            o: next()?,
            scores: next()?,
            softmax: next()?,
            normed: next()?,
        })
    }
}

/// Most rows that are multiplied by a tile of latents at once.
pub fn score_rows(shape: &Mla) -> u64 {
    (ROW_BLOCK * shape.heads) as u64
}

fn query_stride(shape: &Mla) -> usize {
    pad16(shape.heads * (shape.nope + shape.shared)) + 16
}

fn output_stride(shape: &Mla) -> usize {
    pad16(shape.heads * shape.value) + 16
}

/// residual += mixer(x), and the rows' latents are written to their pages. `tile` is an f32 matrix
/// [TILE, width].
pub unsafe fn mla(
    shape: &Mla,
    layer: &MlaLayer,
    plan: &Plan,
    x: Rows,
    residual: Rows,
    epsilon: f32,
    work: &MlaScratch,
    tile: &Matrix,
    scratch: Scratch,
) {
    let count = plan.rows();
    let q = Rows::new(work.q.f32(), query_stride(shape));
    let latent = Rows::new(work.latent.f32(), pad16(shape.width()));
    project(&layer.q, x, count, q, Store::Assign, scratch);
    project(&layer.kv_a, x, count, latent, Store::Assign, scratch);
    absorb(shape, layer, count, work, scratch);
    for sequence in &plan.sequences {
        let pages = plan.pages.as_ptr().add(sequence.page_start);
        write_latents(shape, layer, sequence, pages, epsilon, work);
        for first in (0..sequence.row_count).step_by(ROW_BLOCK) {
            let count = ROW_BLOCK.min(sequence.row_count - first);
            let block =
                Block { row: sequence.row_start + first, count, position: sequence.past + first };
            attend(shape, layer, block, pages, work, tile, scratch);
        }
    }
    let o = Rows::new(work.o.f32(), output_stride(shape));
    let mixed_stride = shape.heads * pad16(shape.latent);
    for head in 0..shape.heads {
        let from = Rows::new(work.mixed.f32().add(head * pad16(shape.latent)), mixed_stride);
        let to = Rows::new(o.start.add(head * shape.value), o.stride);
        // Pads of a head are overwritten by the head after it, those of the last are zero.
        project(&layer.values[head], from, count, to, Store::Assign, scratch);
    }
    project(&layer.o, o, count, residual, Store::Add, scratch);
}

/// q~ | q_shared of every row and head.
unsafe fn absorb(shape: &Mla, layer: &MlaLayer, count: usize, work: &MlaScratch, scratch: Scratch) {
    let q = Rows::new(work.q.f32(), query_stride(shape));
    let stride = pad16(shape.width());
    for head in 0..shape.heads {
        let from = Rows::new(q.start.add(head * (shape.nope + shape.shared)), q.stride);
        let to = Rows::new(work.absorbed.f32().add(head * stride), shape.heads * stride);
        project(&layer.keys[head], from, count, to, Store::Assign, scratch);
        for row in 0..count {
            let shared = from.row(row).add(shape.nope);
            core::ptr::copy_nonoverlapping(shared, to.row(row).add(shape.latent), shape.shared);
        }
    }
}

/// Normalises the latents of a sequence's rows (not the shared keys) and caches them.
unsafe fn write_latents(
    shape: &Mla,
    layer: &MlaLayer,
    sequence: &Sequence,
    pages: *const u32,
    epsilon: f32,
    work: &MlaScratch,
) {
    let stride = pad16(shape.width());
    for t in 0..sequence.row_count {
        let row = work.latent.f32().add((sequence.row_start + t) * stride);
        let normed = work.normed.f32();
        core::ptr::copy_nonoverlapping(row, normed, shape.latent);
        let rows = Rows::new(normed, 0);
        rms_norm(rows, 1, shape.latent, layer.kv_norm.f32(), epsilon, rows);
        core::ptr::copy_nonoverlapping(normed, row, shape.latent);
        // A NaN may have spread into the lanes behind the latent.
        core::ptr::write_bytes(normed, 0, pad16(shape.latent));
        layer.latents.write(pages, sequence.past + t, row);
    }
}

/// Rows [row, row + count) of one sequence, the first at `position`.
#[derive(Clone, Copy)]
struct Block {
    row: usize,
    count: usize,
    position: usize,
}

/// Attention of a block of rows over everything up to each of them, into `mixed`.
unsafe fn attend(
    shape: &Mla,
    layer: &MlaLayer,
    block: Block,
    pages: *const u32,
    work: &MlaScratch,
    tile: &Matrix,
    scratch: Scratch,
) {
    let heads = shape.heads;
    let stride = pad16(shape.width());
    let mixed_stride = pad16(shape.latent);
    let absorbed = work.absorbed.f32().add(block.row * heads * stride);
    let mixed = work.mixed.f32().add(block.row * heads * mixed_stride);
    for pair in 0..block.count * heads {
        *work.softmax.f32().add(pair * 2) = f32::NEG_INFINITY;
        *work.softmax.f32().add(pair * 2 + 1) = 0.0;
    }
    core::ptr::write_bytes(mixed, 0, block.count * heads * mixed_stride);
    let end = block.position + block.count;
    for start in (0..end).step_by(TILE) {
        let values = tile.data() as *mut f32;
        layer.latents.unpack(pages, start, end.min(start + TILE), values);
        // Rows before the tile see nothing of it.
        let skipped = start.saturating_sub(block.position);
        let first = skipped * heads;
        let queries = Rows::new(absorbed.add(first * stride), stride);
        let scores = Rows::new(work.scores.f32().add(first * TILE), TILE);
        let pairs = block.count * heads - first;
        project(tile, queries, pairs, scores, Store::Assign, scratch);
        for row in skipped..block.count {
            let seen = (block.position + row + 1 - start).min(TILE);
            let mut head = 0;
            while head < heads {
                let pair = row * heads + head;
                let softmax = work.softmax.f32().add(pair * 2);
                let part = Part {
                    values,
                    blocks: tile.blocks,
                    seen,
                    weights: work.scores.f32().add(pair * TILE),
                    mixed: mixed.add(pair * mixed_stride),
                    width: mixed_stride,
                };
                let keep = weigh(shape, part.weights, seen, softmax);
                if head + 1 < heads {
                    let next = weigh(shape, part.weights.add(TILE), seen, softmax.add(2));
                    part.mix([keep, next]);
                } else {
                    part.mix([keep]);
                }
                head += 2;
            }
        }
    }
    for pair in 0..block.count * heads {
        let factor = f32x4_splat(1.0 / *work.softmax.f32().add(pair * 2 + 1));
        map(mixed.add(pair * mixed_stride), mixed_stride, |value| f32x4_mul(value, factor));
    }
}

/// Turns the first `seen` scores into weights exp(score - largest), zeros behind them; updates
/// (largest, sum). Returns the factor for what was summed before. A NaN score makes all NaN.
unsafe fn weigh(shape: &Mla, scores: *mut f32, seen: usize, softmax: *mut f32) -> f32 {
    let scale = f32x4_splat(1.0 / ((shape.nope + shape.shared) as f32).sqrt());
    for i in seen..TILE {
        *scores.add(i) = f32::NEG_INFINITY;
    }
    let before = splat(softmax);
    let mut largest = before;
    for i in (0..TILE).step_by(4) {
        let score = f32x4_mul(load(scores.add(i)), scale);
        store(scores.add(i), score);
        largest = f32x4_max(largest, score);
    }
    largest = f32x4_max(largest, i32x4_shuffle::<2, 3, 0, 1>(largest, largest));
    largest = f32x4_max(largest, i32x4_shuffle::<1, 0, 3, 2>(largest, largest));
    let mut total = zero();
    for i in (0..TILE).step_by(4) {
        let weight = exp(f32x4_sub(load(scores.add(i)), largest));
        store(scores.add(i), weight);
        total = f32x4_add(total, weight);
    }
    let keep = f32x4_extract_lane::<0>(exp(f32x4_sub(before, largest)));
    *softmax = f32x4_extract_lane::<0>(largest);
    *softmax.add(1) = *softmax.add(1) * keep + sum(total);
    keep
}

/// What one head of a row takes from a tile; its neighbour's memory follows its own.
struct Part {
    /// The tile.
    values: *const f32,
    /// Blocks of 16 columns in a row of the tile.
    blocks: usize,
    /// Positions of the tile that the row sees.
    seen: usize,
    /// [head][TILE].
    weights: *mut f32,
    /// [head][width].
    mixed: *mut f32,
    width: usize,
}

impl Part {
    /// mixed = keep * mixed + sum of weight * latent over what is seen, for H heads together.
    unsafe fn mix<const H: usize>(&self, keep: [f32; H]) {
        for block in 0..self.width / 16 {
            let mut sum = [[zero(); 4]; H];
            for h in 0..H {
                let from = self.mixed.add(h * self.width + block * 16);
                for i in 0..4 {
                    sum[h][i] = f32x4_mul(load(from.add(i * 4)), f32x4_splat(keep[h]));
                }
            }
            for row in 0..self.seen {
                let from = self.values.add((row / 4 * self.blocks + block) * 64 + row % 4 * 4);
                for h in 0..H {
                    let weight = splat(self.weights.add(h * TILE + row));
                    for i in 0..4 {
                        sum[h][i] = fma(weight, load(from.add(i * 16)), sum[h][i]);
                    }
                }
            }
            for h in 0..H {
                let to = self.mixed.add(h * self.width + block * 16);
                for i in 0..4 {
                    store(to.add(i * 4), sum[h][i]);
                }
            }
        }
    }
}
