//! The sealed model with its state and scratch memory.

use crate::feed_forward::{self, FeedForward, FeedForwardScratch, MoeLayer, Routing};
use crate::kda::{self, KdaLayer, KdaScratch};
use crate::latents::Latents;
use crate::matmul::{Rows, Store};
use crate::matrix::Matrix;
use crate::memory::{pad16, pad4, Buffer};
use crate::mla::{self, MlaLayer, MlaScratch};
use crate::norm::rms_norm;
use crate::products::{input_bytes, side_by_side, Arena, Inputs, Product, Scratch};
use crate::shape::{Capacity, Plan, Shape};
use crate::simd::*;
use crate::threads::Pool;
use core::arch::wasm32::*;
use std::sync::Arc;

pub enum Mixer {
    Kda(KdaLayer),
    Mla(MlaLayer),
}

pub enum Feed {
    Dense(FeedForward),
    Moe(MoeLayer),
}

pub struct Layer {
    pub mixer_norm: Buffer,
    pub feed_norm: Buffer,
    pub mixer: Mixer,
    pub feed: Feed,
}

/// The largest sizes among the weights, which scratch memory depends on.
#[derive(Clone, Copy, Default)]
pub struct Widths {
    /// Inputs of any matrix.
    pub input: usize,
    /// The narrow side of the KDA gates.
    pub rank: usize,
    /// Intermediates of dense layers.
    pub dense: usize,
    /// Intermediates of routed and shared experts.
    pub expert: usize,
}

pub struct Model {
    pub pool: Arc<Pool>,
    pub embed: Matrix,
    pub head: Matrix,
    pub norm: Buffer,
    pub layers: Vec<Layer>,
    pub plan: Plan,
    pub work: Work,
}

/// Activations of a step.
pub struct Work {
    /// [rows][pad16(hidden)].
    pub residual: Buffer,
    x: Buffer,
    /// [logit_rows][pad16(hidden)].
    last: Buffer,
    /// [logit_rows][pad4(vocabulary)].
    pub logits: Buffer,
    panels: Buffer,
    panel_floats: usize,
    arena: Arena,
    kda: KdaScratch,
    mla: MlaScratch,
    pub feed: FeedForwardScratch,
}

impl Work {
    fn floats(shape: &Shape, capacity: &Capacity, widths: Widths) -> [u64; 8] {
        let rows = capacity.rows;
        let hidden = pad16(shape.hidden);
        let experts = (1 + shape.moe.per_token) * pad16(widths.expert);
        let intermediate = rows * experts.max(pad16(widths.dense));
        [
            rows * hidden,
            rows * hidden,
            capacity.logit_rows * hidden,
            capacity.logit_rows * pad4(shape.vocabulary),
            capacity.threads * panel_floats(shape, widths),
            intermediate,
            intermediate,
            rows * pad16(shape.moe.experts),
        ]
        .map(|floats| floats as u64)
    }

    /// The most that one block prepares of its inputs.
    fn arena_bytes(shape: &Shape, capacity: &Capacity, widths: Widths) -> u64 {
        let rows = capacity.rows.max(capacity.logit_rows);
        let of = |columns: usize| input_bytes(rows, columns);
        // Each kind of weight has its own form of x.
        let x = 4 * of(shape.hidden);
        let values = shape.kda.value_channels().max(shape.mla.heads * shape.mla.value);
        let mixer = x + 2 * of(widths.rank) + of(values);
        // Gate and up of an expert may be of two kinds.
        let experts = 1 + shape.moe.per_token as u64;
        let moe = x + experts * (2 * of(shape.hidden) + of(widths.expert));
        // Each piece is rounded up.
        let pieces = 3 * (shape.moe.experts as u64 + 8);
        mixer.max(moe).max(x + of(widths.dense)) + pieces * 16
    }

    pub fn bytes(shape: &Shape, capacity: &Capacity, widths: Widths) -> u64 {
        let Capacity { rows, threads, .. } = *capacity;
        let floats = Self::floats(shape, capacity, widths).iter().sum::<u64>()
            + KdaScratch::floats(&shape.kda, rows, widths.rank).iter().sum::<u64>()
            + MlaScratch::floats(&shape.mla, rows, threads);
        floats * 4 + Self::arena_bytes(shape, capacity, widths) + Routing::bytes(&shape.moe, rows)
    }

    pub fn new(shape: &Shape, capacity: &Capacity, widths: Widths) -> Result<Work, String> {
        let floats = Self::floats(shape, capacity, widths);
        let mut buffers = floats.iter().map(|&count| Buffer::floats(count));
        let mut next = || buffers.next().unwrap();
        let Capacity { rows, threads, .. } = *capacity;
        Ok(Work {
            residual: next()?,
            x: next()?,
            last: next()?,
            logits: next()?,
            panels: next()?,
            panel_floats: panel_floats(shape, widths),
            arena: Arena::new(Self::arena_bytes(shape, capacity, widths))?,
            feed: FeedForwardScratch {
                gate: next()?,
                up: next()?,
                scores: next()?,
                routing: Routing::new(&shape.moe, rows),
            },
            kda: KdaScratch::new(&shape.kda, rows, widths.rank)?,
            mla: MlaScratch::new(&shape.mla, rows, threads)?,
        })
    }
}

/// Floats of a thread's panel: four inputs of a product, or the tail of a convolution.
fn panel_floats(shape: &Shape, widths: Widths) -> usize {
    let tail = shape.kda.taps.saturating_sub(1) * shape.kda.key_dim.max(shape.kda.value_dim);
    pad16((4 * pad16(widths.input)).max(tail))
}

/// Bytes of state and latents of the whole model.
pub fn state_bytes(shape: &Shape, capacity: &Capacity, kda_layers: u64, mla_layers: u64) -> u64 {
    let slot = kda::state_floats(&shape.kda) as u64 + kda::tail_floats(&shape.kda) as u64;
    let Capacity { pages, page_tokens, half_latents, .. } = *capacity;
    capacity.slots as u64 * slot * 4 * kda_layers
        + Latents::bytes(shape.mla.width(), pages, page_tokens, half_latents) * mla_layers
}

impl Model {
    /// What products need; nothing that they prepared before is kept.
    fn scratch(&self) -> Scratch<'_> {
        let Work { arena, panels, panel_floats, .. } = &self.work;
        arena.clear();
        Scratch { pool: &self.pool, arena, panels: panels.f32(), panel_floats: *panel_floats }
    }

    fn rows_of(&self, buffer: &Buffer, shape: &Shape) -> Rows {
        Rows::new(buffer.f32(), pad16(shape.hidden))
    }

    /// x = RMS norm of the residual, with the weights given.
    unsafe fn normalize(&self, shape: &Shape, weight: &Buffer) -> (Rows, Rows) {
        let residual = self.rows_of(&self.work.residual, shape);
        let x = self.rows_of(&self.work.x, shape);
        self.scratch().over_rows(self.plan.rows(), |from, to| {
            let behind = |rows: Rows| Rows::new(rows.row(from), rows.stride);
            let (residual, x) = (behind(residual), behind(x));
            rms_norm(residual, to - from, shape.hidden, weight.f32(), shape.epsilon, x);
        });
        (x, residual)
    }

    /// residual = embedding rows of the tokens.
    pub fn embed(&mut self, shape: &Shape) {
        let residual = self.rows_of(&self.work.residual, shape);
        for (row, &token) in self.plan.tokens.iter().enumerate() {
            unsafe {
                let to = residual.row(row);
                core::ptr::write_bytes(to, 0, residual.stride);
                for column in 0..shape.hidden {
                    *to.add(column) = self.embed.value(token as usize, column);
                }
            }
        }
    }

    /// residual += mixer of layer `index`.
    pub fn mix(&mut self, shape: &Shape, index: usize) {
        let layer = &self.layers[index];
        let (work, plan) = (&self.work, &self.plan);
        unsafe {
            let (x, residual) = self.normalize(shape, &layer.mixer_norm);
            let scratch = self.scratch();
            match &layer.mixer {
                Mixer::Kda(layer) => {
                    let epsilon = shape.epsilon;
                    kda::kda(&shape.kda, layer, plan, x, residual, epsilon, &work.kda, scratch)
                }
                Mixer::Mla(layer) => mla::mla(
                    &shape.mla,
                    layer,
                    plan,
                    x,
                    residual,
                    shape.latent_epsilon,
                    &work.mla,
                    scratch,
                ),
            }
        }
    }

    /// residual += feed-forward of layer `index`.
    pub fn feed(&mut self, shape: &Shape, index: usize) {
        let count = self.plan.rows();
        unsafe {
            let (x, residual) = self.normalize(shape, &self.layers[index].feed_norm);
            let Work { arena, panels, panel_floats, feed: work, .. } = &mut self.work;
            arena.clear();
            let panel_floats = *panel_floats;
            let scratch = Scratch { pool: &self.pool, arena, panels: panels.f32(), panel_floats };
            match &mut self.layers[index].feed {
                Feed::Dense(weight) => {
                    feed_forward::dense(weight, x, residual, count, work, scratch)
                }
                Feed::Moe(layer) => {
                    feed_forward::moe(&shape.moe, layer, x, residual, count, work, scratch)
                }
            }
        }
    }

    /// Final norm and head of the wanted rows.
    pub fn logits(&mut self, shape: &Shape) {
        let count = self.plan.logit_rows.len();
        if count == 0 {
            return;
        }
        unsafe {
            let residual = self.rows_of(&self.work.residual, shape);
            let residual = residual.at(self.plan.logit_rows.as_ptr());
            let last = self.rows_of(&self.work.last, shape);
            rms_norm(residual, count, shape.hidden, self.norm.f32(), shape.epsilon, last);
            let logits = Rows::new(self.work.logits.f32(), pad4(shape.vocabulary));
            let (weight, how) = (&self.head, Store::Assign);
            let scratch = self.scratch();
            let input = Inputs::new(scratch, last, count).of(weight);
            side_by_side(scratch, &[Product { weight, input, count, output: logits, how }]);
        }
    }

    /// Per logit row 1 where any logit is NaN or infinite.
    pub fn non_finite(&self, shape: &Shape) -> Vec<u8> {
        let stride = pad4(shape.vocabulary);
        let row = |row: usize| unsafe {
            // x - x is 0 for finite x and NaN otherwise, and a NaN stays in a sum.
            let from = self.work.logits.f32().add(row * stride);
            let mut lanes = zero();
            for i in (0..stride).step_by(4) {
                let value = load(from.add(i));
                lanes = f32x4_add(lanes, f32x4_sub(value, value));
            }
            sum(lanes).is_nan() as u8
        };
        (0..self.plan.logit_rows.len()).map(row).collect()
    }
}
