//! The sealed model with its state and scratch memory.

use crate::feed_forward::{self, FeedForward, FeedForwardScratch, MoeLayer, Routing};
use crate::kda::{self, KdaLayer, KdaScratch};
use crate::latents::{Latents, TILE};
use crate::matmul::{project, Rows, Scratch, Store};
use crate::matrix::Matrix;
use crate::memory::{pad16, pad4, Buffer};
use crate::mla::{self, MlaLayer, MlaScratch};
use crate::norm::rms_norm;
use crate::shape::{Capacity, Plan, Shape};
use crate::simd::*;
use core::arch::wasm32::*;

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
    /// Feed-forward intermediates.
    pub intermediate: usize,
}

pub struct Model {
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
    panel: Buffer,
    packed: Buffer,
    kda: KdaScratch,
    mla: MlaScratch,
    /// A tile of latents as an f32 matrix [TILE, width].
    tile: Matrix,
    pub feed: FeedForwardScratch,
}

impl Work {
    fn floats(shape: &Shape, capacity: &Capacity, widths: Widths) -> [u64; 9] {
        let rows = capacity.rows as u64;
        let hidden = pad16(shape.hidden) as u64;
        let logit_rows = capacity.logit_rows as u64;
        let input = widths.input.max(shape.mla.nope).max(shape.mla.width());
        let input = pad16(input) as u64;
        let intermediate = rows * pad16(widths.intermediate) as u64;
        [
            rows * hidden,
            rows * hidden,
            logit_rows * hidden,
            logit_rows * pad4(shape.vocabulary) as u64,
            4 * input,
            rows.max(logit_rows).max(mla::score_rows(&shape.mla)) * input,
            intermediate,
            intermediate,
            rows * pad16(shape.moe.experts) as u64,
        ]
    }

    pub fn bytes(shape: &Shape, capacity: &Capacity, widths: Widths) -> u64 {
        let floats = Self::floats(shape, capacity, widths).iter().sum::<u64>()
            + KdaScratch::floats(&shape.kda, capacity.rows, widths.rank).iter().sum::<u64>()
            + MlaScratch::floats(&shape.mla, capacity.rows).iter().sum::<u64>()
            + (TILE * pad16(shape.mla.width())) as u64;
        floats * 4 + Routing::bytes(&shape.moe, capacity.rows)
    }

    pub fn new(shape: &Shape, capacity: &Capacity, widths: Widths) -> Result<Work, String> {
        let floats = Self::floats(shape, capacity, widths);
        let mut buffers = floats.iter().map(|&count| Buffer::floats(count));
        let mut next = || buffers.next().unwrap();
        Ok(Work {
            residual: next()?,
            x: next()?,
            last: next()?,
            logits: next()?,
            panel: next()?,
            packed: next()?,
            feed: FeedForwardScratch {
                gate: next()?,
                up: next()?,
                scores: next()?,
                routing: Routing::new(&shape.moe, capacity.rows),
            },
            kda: KdaScratch::new(&shape.kda, capacity.rows, widths.rank)?,
            mla: MlaScratch::new(&shape.mla, capacity.rows)?,
            tile: Matrix::new(crate::formats::Format::F32, TILE, shape.mla.width(), (1, 1))?,
        })
    }

    fn scratch(&self) -> Scratch {
        Scratch { panel: self.panel.f32(), packed: self.packed.f32() }
    }
}

/// Bytes of state and latents of the whole model.
pub fn state_bytes(shape: &Shape, capacity: &Capacity, kda_layers: u64, mla_layers: u64) -> u64 {
    let slot = kda::state_floats(&shape.kda) as u64 + kda::tail_floats(&shape.kda) as u64;
    let Capacity { pages, page_tokens, half_latents, .. } = *capacity;
    capacity.slots as u64 * slot * 4 * kda_layers
        + Latents::bytes(shape.mla.width(), pages, page_tokens, half_latents) * mla_layers
}

impl Model {
    fn rows_of(&self, buffer: &Buffer, shape: &Shape) -> Rows {
        Rows::new(buffer.f32(), pad16(shape.hidden))
    }

    /// x = RMS norm of the residual, with the weights given.
    unsafe fn normalize(&self, shape: &Shape, weight: &Buffer) -> (Rows, Rows) {
        let residual = self.rows_of(&self.work.residual, shape);
        let x = self.rows_of(&self.work.x, shape);
        let count = self.plan.rows();
        rms_norm(residual, count, shape.hidden, weight.f32(), shape.epsilon, x);
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
            let scratch = work.scratch();
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
                    &work.tile,
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
            let scratch = self.work.scratch();
            let work = &mut self.work.feed;
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
            project(&self.head, last, count, logits, Store::Assign, self.work.scratch());
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
