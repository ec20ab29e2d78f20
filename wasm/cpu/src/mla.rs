//! The multi-head latent attention mixer, without positions, in the absorbed form:
//!
//!   q~ = Kᵀ q_nope;  score = (q~ . c + q_shared . p) / sqrt(nope + shared);  o = V (softmax . c)
//!
//! Attention runs over tiles of 32 positions with an online softmax. Tiles begin at multiples of
//! 32, so a row's sums are made in the same order whatever the chunking and the pages.

use crate::formats::Format;
use crate::latents::{Latents, TILE};
use crate::matmul::{Rows, Store};
use crate::matrix::Matrix;
use crate::memory::{pad16, pad4, Buffer};
use crate::mla_tile::{weigh, Part};
use crate::norm::rms_norm;
use crate::products::{alone, side_by_side, Inputs, Product, Scratch};
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
    /// [rows][pad16(width)]: latent | shared key before the cache.
    pub latent: Buffer,
    /// [rows][pad16(heads x value)].
    pub o: Buffer,
    /// One for each thread.
    pub attention: Vec<AttentionScratch>,
}

/// Memory of one block of rows: pairs of row and head, [row][head].
pub struct AttentionScratch {
    /// q~ | q_shared: [pairs][pad16(width)].
    absorbed: Buffer,
    /// Inputs of a product.
    packed: Buffer,
    /// Weighted latents, [pairs][pad16(latent)].
    mixed: Buffer,
    /// [pairs][TILE].
    scores: Buffer,
    /// Largest score and sum, [pairs][2].
    softmax: Buffer,
    /// One head's outputs, [rows][pad4(value)].
    o: Buffer,
    /// A tile of latents as an f32 matrix [TILE, width].
    tile: Matrix,
}

impl AttentionScratch {
    fn floats(shape: &Mla) -> [u64; 6] {
        let pairs = ROW_BLOCK * shape.heads;
        let widest = shape.width().max(shape.nope);
        [
            pairs * pad16(shape.width()),
            pairs * pad16(widest),
            pairs * pad16(shape.latent),
            pairs * TILE,
            pairs * 2,
            ROW_BLOCK * pad4(shape.value),
        ]
        .map(|floats| floats as u64)
    }

    fn new(shape: &Mla) -> Result<AttentionScratch, String> {
        let floats = Self::floats(shape);
        let mut buffers = floats.iter().map(|&count| Buffer::floats(count));
        let mut next = || buffers.next().unwrap();
        Ok(AttentionScratch {
            absorbed: next()?,
            packed: next()?,
            mixed: next()?,
            scores: next()?,
            softmax: next()?,
            o: next()?,
            tile: Matrix::new(Format::F32, TILE, shape.width(), (1, 1))?,
        })
    }
}

impl MlaScratch {
    /// Floats of q, latent and o for `rows` rows.
    fn row_floats(shape: &Mla, rows: usize) -> [u64; 3] {
        [query_stride(shape), pad16(shape.width()), output_stride(shape)]
            .map(|floats| (rows * floats) as u64)
    }

    pub fn floats(shape: &Mla, rows: usize, threads: usize) -> u64 {
        let tile = (TILE * pad16(shape.width())) as u64;
        let attention = AttentionScratch::floats(shape).iter().sum::<u64>() + tile;
        Self::row_floats(shape, rows).iter().sum::<u64>() + threads as u64 * attention
    }

    pub fn new(shape: &Mla, rows: usize, threads: usize) -> Result<MlaScratch, String> {
        let [q, latent, o] = Self::row_floats(shape, rows).map(Buffer::floats);
        let attention = (0..threads).map(|_| AttentionScratch::new(shape));
        Ok(MlaScratch {
            q: q?,
            latent: latent?,
            o: o?,
            attention: attention.collect::<Result<_, _>>()?,
        })
    }
}

fn query_stride(shape: &Mla) -> usize {
    pad16(shape.heads * (shape.nope + shape.shared)) + 16
}

fn output_stride(shape: &Mla) -> usize {
    pad16(shape.heads * shape.value)
}

/// residual += mixer(x), and the rows' latents are written to their pages.
pub unsafe fn mla(
    shape: &Mla,
    layer: &MlaLayer,
    plan: &Plan,
    x: Rows,
    residual: Rows,
    epsilon: f32,
    work: &MlaScratch,
    scratch: Scratch,
) {
    let count = plan.rows();
    let q = Rows::new(work.q.f32(), query_stride(shape));
    let latent = Rows::new(work.latent.f32(), pad16(shape.width()));
    let mut inputs = Inputs::new(scratch, x, count);
    let how = Store::Assign;
    let product =
        |(weight, output)| Product { weight, input: inputs.of(weight), count, output, how };
    side_by_side(scratch, &[(&layer.q, q), (&layer.kv_a, latent)].map(product));
    for sequence in &plan.sequences {
        let pages = plan.pages.as_ptr().add(sequence.page_start);
        scratch.over_rows(sequence.row_count, |from, to| {
            write_latents(shape, layer, sequence, (from, to), pages, epsilon, work);
        });
    }
    let blocks = blocks(shape, plan, scratch.pool.threads());
    scratch.pool.run(blocks.len(), &|part, thread| {
        let (memory, block) = (&work.attention[thread], &blocks[part]);
        let pages = plan.pages.as_ptr().add(block.page_start);
        absorb(shape, layer, block, work, memory);
        attend(shape, layer, block, pages, memory);
        project_values(shape, layer, block, work, memory);
    });
    let o = Rows::new(work.o.f32(), output_stride(shape));
    let input = Inputs::new(scratch, o, count).of(&layer.o);
    let how = Store::Add;
    side_by_side(scratch, &[Product { weight: &layer.o, input, count, output: residual, how }]);
}

/// Rows [row, row + count) of one sequence, the first at `position`, and `heads` of their heads.
struct Block {
    row: usize,
    count: usize,
    position: usize,
    page_start: usize,
    first_head: usize,
    heads: usize,
}

/// The step's rows in blocks, those with most to read first; heads are parted where there are fewer
/// blocks than threads could work on.
fn blocks(shape: &Mla, plan: &Plan, threads: usize) -> Vec<Block> {
    let count = |sequence: &Sequence| sequence.row_count.div_ceil(ROW_BLOCK);
    let whole = threads == 1 || plan.sequences.iter().map(count).sum::<usize>() >= 2 * threads;
    // Heads are mixed in pairs.
    let heads = if whole { shape.heads } else { 2 };
    let mut blocks = Vec::new();
    for sequence in &plan.sequences {
        for first in (0..sequence.row_count).step_by(ROW_BLOCK) {
            for first_head in (0..shape.heads).step_by(heads) {
                blocks.push(Block {
                    row: sequence.row_start + first,
                    count: ROW_BLOCK.min(sequence.row_count - first),
                    position: sequence.past + first,
                    page_start: sequence.page_start,
                    first_head,
                    heads: heads.min(shape.heads - first_head),
                });
            }
        }
    }
    blocks.sort_by_key(|block| core::cmp::Reverse(block.position));
    blocks
}

/// q~ | q_shared of every row and head.
unsafe fn absorb(
    shape: &Mla,
    layer: &MlaLayer,
    block: &Block,
    work: &MlaScratch,
    memory: &AttentionScratch,
) {
    let stride = query_stride(shape);
    let q = work.q.f32().add(block.row * stride);
    let width = pad16(shape.width());
    for head in 0..block.heads {
        let at = (block.first_head + head) * (shape.nope + shape.shared);
        let from = Rows::new(q.add(at), stride);
        let to = Rows::new(memory.absorbed.f32().add(head * width), block.heads * width);
        let weight = &layer.keys[block.first_head + head];
        alone(weight, from, block.count, to, memory.packed.f32());
        for row in 0..block.count {
            let shared = from.row(row).add(shape.nope);
            core::ptr::copy_nonoverlapping(shared, to.row(row).add(shape.latent), shape.shared);
        }
    }
}

/// Every head's outputs from its weighted latents.
unsafe fn project_values(
    shape: &Mla,
    layer: &MlaLayer,
    block: &Block,
    work: &MlaScratch,
    memory: &AttentionScratch,
) {
    let width = pad16(shape.latent);
    let stride = output_stride(shape);
    let out = Rows::new(memory.o.f32(), pad4(shape.value));
    for head in 0..block.heads {
        let from = Rows::new(memory.mixed.f32().add(head * width), block.heads * width);
        let index = block.first_head + head;
        alone(&layer.values[index], from, block.count, out, memory.packed.f32());
        for row in 0..block.count {
            let to = work.o.f32().add((block.row + row) * stride + index * shape.value);
            core::ptr::copy_nonoverlapping(out.row(row), to, shape.value);
        }
    }
}

/// Normalises the latents of rows [from, to) of a sequence (not the shared keys) and caches them.
unsafe fn write_latents(
    shape: &Mla,
    layer: &MlaLayer,
    sequence: &Sequence,
    (from, to): (usize, usize),
    pages: *const u32,
    epsilon: f32,
    work: &MlaScratch,
) {
    let stride = pad16(shape.width());
    for t in from..to {
        let row = work.latent.f32().add((sequence.row_start + t) * stride);
        // The norm works on whole lanes: what it does to the shared key is undone.
        let mut behind = [0f32; 4];
        let pad = pad4(shape.latent) - shape.latent;
        let end = row.add(shape.latent);
        core::ptr::copy_nonoverlapping(end, behind.as_mut_ptr(), pad);
        core::ptr::write_bytes(end, 0, pad);
        rms_norm(
            Rows::new(row, 0),
            1,
            shape.latent,
            layer.kv_norm.f32(),
            epsilon,
            Rows::new(row, 0),
        );
        core::ptr::copy_nonoverlapping(behind.as_ptr(), end, pad);
        layer.latents.write(pages, sequence.past + t, row);
    }
}

/// Attention of a block of rows over everything up to each of them, into `mixed`.
unsafe fn attend(
    shape: &Mla,
    layer: &MlaLayer,
    block: &Block,
    pages: *const u32,
    memory: &AttentionScratch,
) {
    let heads = block.heads;
    let stride = pad16(shape.width());
    let mixed_stride = pad16(shape.latent);
    let (absorbed, mixed) = (memory.absorbed.f32(), memory.mixed.f32());
    for pair in 0..block.count * heads {
        *memory.softmax.f32().add(pair * 2) = f32::NEG_INFINITY;
        *memory.softmax.f32().add(pair * 2 + 1) = 0.0;
    }
    core::ptr::write_bytes(mixed, 0, block.count * heads * mixed_stride);
    let end = block.position + block.count;
    for start in (0..end).step_by(TILE) {
        let tile = &memory.tile;
        let values = tile.data() as *mut f32;
        layer.latents.unpack(pages, start, end.min(start + TILE), values);
        // Rows before the tile see nothing of it.
        let skipped = start.saturating_sub(block.position);
        let first = skipped * heads;
        let queries = Rows::new(absorbed.add(first * stride), stride);
        let scores = Rows::new(memory.scores.f32().add(first * TILE), TILE);
        let pairs = block.count * heads - first;
        alone(tile, queries, pairs, scores, memory.packed.f32());
        for row in skipped..block.count {
            let seen = (block.position + row + 1 - start).min(TILE);
            let mut head = 0;
            while head < heads {
                let pair = row * heads + head;
                let softmax = memory.softmax.f32().add(pair * 2);
                let part = Part {
                    values,
                    blocks: tile.blocks,
                    seen,
                    weights: memory.scores.f32().add(pair * TILE),
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
        let factor = f32x4_splat(1.0 / *memory.softmax.f32().add(pair * 2 + 1));
        map(mixed.add(pair * mixed_stride), mixed_stride, |value| f32x4_mul(value, factor));
    }
}
