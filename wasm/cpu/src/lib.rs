//! The cpu device: one class whose methods are the blocks of a Kimi-Linear model.
//!
//! `wasm/cpu.ts` checks every argument before it calls; nothing here is meant for other callers.

#![feature(stdarch_wasm_atomic_wait)]

mod assemble;
mod dot;
mod feed_forward;
mod formats;
mod integer;
mod kda;
mod kda_recurrence;
mod latents;
mod matmul;
mod matrix;
mod memory;
mod mla;
mod mla_tile;
mod model;
mod norm;
mod products;
mod shape;
mod simd;
mod threads;

use assemble::{LayerKind, Tensors};
use formats::Format;
use matrix::Matrix;
use memory::{pad16, pad4};
use model::{Feed, Mixer, Model};
use shape::{Capacity, Kda, Mla, Moe, Sequence, Shape};
use std::sync::Arc;
use threads::Pool;
use wasm_bindgen::prelude::*;

/// Bytes that one matrix takes in memory.
#[wasm_bindgen(js_name = matrixBytes)]
pub fn matrix_bytes(format: u32, rows: u32, columns: u32, columns_per_scale: u32) -> f64 {
    let format = Format::from_code(format);
    matrix::matrix_bytes(format, rows.into(), columns.into(), columns_per_scale.into()) as f64
}

#[wasm_bindgen]
pub struct Cpu {
    shape: Shape,
    kinds: Vec<LayerKind>,
    tensors: Tensors,
    model: Option<Model>,
    pool: Arc<Pool>,
}

fn capacity_of(values: &[u32]) -> Capacity {
    let at = |i: usize| values[i] as usize;
    Capacity {
        slots: at(0),
        pages: at(1),
        page_tokens: at(2),
        rows: at(3),
        logit_rows: at(4),
        half_latents: values[5] != 0,
        threads: at(6),
    }
}

#[wasm_bindgen]
impl Cpu {
    /// `sizes`: vocabulary, hidden, KDA heads, key, value, taps, MLA heads, latent, nope, shared
    /// key, value, experts, experts per token, renormalize. `reals`: epsilon, latent epsilon,
    /// routed scale. `layers`: per layer, bit 0 for MLA, bit 1 for experts.
    #[wasm_bindgen(constructor)]
    pub fn new(sizes: &[u32], reals: &[f32], layers: &[u8]) -> Cpu {
        let at = |i: usize| sizes[i] as usize;
        let shape = Shape {
            vocabulary: at(0),
            hidden: at(1),
            epsilon: reals[0],
            latent_epsilon: reals[1],
            kda: Kda { heads: at(2), key_dim: at(3), value_dim: at(4), taps: at(5) },
            mla: Mla { heads: at(6), latent: at(7), nope: at(8), shared: at(9), value: at(10) },
            moe: Moe {
                experts: at(11),
                per_token: at(12),
                renormalize: sizes[13] != 0,
                scale: reals[2],
            },
        };
        let kind = |&bits: &u8| LayerKind { mla: bits & 1 != 0, moe: bits & 2 != 0 };
        let kinds = layers.iter().map(kind).collect();
        Cpu { shape, kinds, tensors: Tensors::new(), model: None, pool: Arc::new(Pool::new()) }
    }

    pub fn declare(
        &mut self,
        key: String,
        format: u32,
        matrices: u32,
        rows: u32,
        columns: u32,
        rows_per_scale: u32,
        columns_per_scale: u32,
    ) -> Result<(), JsError> {
        let per_scale = (rows_per_scale as usize, columns_per_scale as usize);
        let format = Format::from_code(format);
        let new = |_| Matrix::new(format, rows as usize, columns as usize, per_scale);
        let stack = (0..matrices).map(new).collect::<Result<_, _>>().map_err(error)?;
        self.tensors.insert(key, stack);
        Ok(())
    }

    pub fn write(&mut self, key: &str, matrix: u32, byte_offset: f64, bytes: &[u8]) {
        if let Some(stack) = self.tensors.get_mut(key) {
            stack[matrix as usize].write(byte_offset as u64, bytes);
        }
    }

    #[wasm_bindgen(js_name = writeScales)]
    pub fn write_scales(&mut self, key: &str, matrix: u32, scales: &[f32]) {
        if let Some(stack) = self.tensors.get_mut(key) {
            stack[matrix as usize].write_scales(scales);
        }
    }

    #[wasm_bindgen(js_name = writeGroupScales)]
    pub fn write_group_scales(&mut self, key: &str, matrix: u32, byte_offset: f64, bytes: &[u8]) {
        if let Some(stack) = self.tensors.get_mut(key) {
            stack[matrix as usize].write_group_scales(byte_offset as u64, bytes);
        }
    }

    /// Bytes that `configure` will allocate.
    #[wasm_bindgen(js_name = configureBytes)]
    pub fn configure_bytes(&self, capacity: &[u32]) -> f64 {
        let capacity = capacity_of(capacity);
        let mla_layers = self.kinds.iter().filter(|kind| kind.mla).count() as u64;
        let kda_layers = self.kinds.len() as u64 - mla_layers;
        let bytes = model::state_bytes(&self.shape, &capacity, kda_layers, mla_layers)
            + model::Work::bytes(&self.shape, &capacity, assemble::widths(&self.tensors))
            + assemble::derived_bytes(&self.shape, mla_layers);
        bytes as f64
    }

    pub fn configure(&mut self, capacity: &[u32]) -> Result<(), JsError> {
        let tensors = core::mem::take(&mut self.tensors);
        let capacity = capacity_of(capacity);
        let model =
            assemble::assemble(&self.shape, &self.kinds, tensors, &capacity, self.pool.clone());
        self.model = Some(model.map_err(error)?);
        Ok(())
    }

    /// `sequences`: per sequence slot, first row, rows, past, first entry of `pages`.
    pub fn begin(&mut self, tokens: &[u32], sequences: &[u32], pages: &[u32], logit_rows: &[u32]) {
        let plan = &mut self.model().plan;
        let refill = |to: &mut Vec<u32>, from: &[u32]| {
            to.clear();
            to.extend_from_slice(from);
        };
        refill(&mut plan.tokens, tokens);
        refill(&mut plan.pages, pages);
        refill(&mut plan.logit_rows, logit_rows);
        plan.sequences.clear();
        plan.sequences.extend(sequences.chunks_exact(5).map(|s| Sequence {
            slot: s[0] as usize,
            row_start: s[1] as usize,
            row_count: s[2] as usize,
            past: s[3] as usize,
            page_start: s[4] as usize,
        }));
    }

    pub fn embed(&mut self) {
        let (model, shape) = self.parts();
        model.embed(shape);
    }

    /// The KDA or MLA block of a layer.
    pub fn mix(&mut self, layer: u32) {
        let (model, shape) = self.parts();
        model.mix(shape, layer as usize);
    }

    /// The dense or MoE block of a layer.
    pub fn feed(&mut self, layer: u32) {
        let (model, shape) = self.parts();
        model.feed(shape, layer as usize);
    }

    pub fn logits(&mut self) {
        let (model, shape) = self.parts();
        model.logits(shape);
    }

    /// Address of the logits, [logit rows, vocabulary padded to 4].
    #[wasm_bindgen(js_name = logitsPointer)]
    pub fn logits_pointer(&mut self) -> u32 {
        self.model().work.logits.f32() as u32
    }

    #[wasm_bindgen(js_name = nonFinite)]
    pub fn non_finite(&mut self) -> Vec<u8> {
        let (model, shape) = self.parts();
        model.non_finite(shape)
    }
}

/// Helpers: other threads with an instance of this module on the same memory.
#[wasm_bindgen]
impl Cpu {
    /// Address of the pool, a reference to it that one `Helper` takes over.
    #[wasm_bindgen(js_name = poolPointer)]
    pub fn pool_pointer(&self) -> u32 {
        Arc::into_raw(self.pool.clone()) as u32
    }

    /// Helpers that have come and not left.
    pub fn helpers(&self) -> u32 {
        self.pool.helpers() as u32
    }

    /// Tells the helpers to leave.
    #[wasm_bindgen(js_name = stopHelpers)]
    pub fn stop_helpers(&self) {
        self.pool.stop();
    }
}

/// A helper's side of a pool.
#[wasm_bindgen]
pub struct Helper {
    pool: Arc<Pool>,
    thread: usize,
}

#[wasm_bindgen]
impl Helper {
    /// Takes over the reference that `poolPointer` gave; `thread`: its number, from 1.
    #[wasm_bindgen(constructor)]
    pub fn new(pool: u32, thread: u32) -> Helper {
        let pool = unsafe { Arc::from_raw(pool as *const Pool) };
        pool.attach();
        Helper { pool, thread: thread as usize }
    }

    /// Works, then sleeps for a while. False when the pool is stopped: the helper has left it.
    pub fn help(&self) -> bool {
        let goes_on = self.pool.help(self.thread);
        if !goes_on {
            self.pool.detach();
        }
        goes_on
    }
}

/// State and inspection.
#[wasm_bindgen]
impl Cpu {
    #[wasm_bindgen(js_name = zeroSlot)]
    pub fn zero_slot(&mut self, slot: u32) {
        let (model, shape) = self.parts();
        let (state, tail) = (kda::state_floats(&shape.kda), kda::tail_floats(&shape.kda));
        let slot = slot as usize;
        for layer in &model.layers {
            if let Mixer::Kda(layer) = &layer.mixer {
                unsafe {
                    core::ptr::write_bytes(layer.state.f32().add(slot * state), 0, state);
                    core::ptr::write_bytes(layer.tails.f32().add(slot * tail), 0, tail);
                }
            }
        }
    }

    /// [heads, key_dim, value_dim] of a KDA layer; empty for another.
    #[wasm_bindgen(js_name = recurrentState)]
    pub fn recurrent_state(&mut self, layer: u32, slot: u32) -> Vec<f32> {
        let (model, shape) = self.parts();
        let Mixer::Kda(layer) = &model.layers[layer as usize].mixer else { return Vec::new() };
        let Kda { heads, key_dim, value_dim, .. } = shape.kda;
        let start = slot as usize * kda::state_floats(&shape.kda);
        let mut values = Vec::with_capacity(heads * key_dim * value_dim);
        for head in 0..heads {
            for d in 0..key_dim {
                for j in 0..value_dim {
                    let column = head * pad16(value_dim) + j / 16 * 16;
                    let at = start + column * key_dim + d * 16 + j % 16;
                    values.push(unsafe { *layer.state.f32().add(at) });
                }
            }
        }
        values
    }

    /// [taps - 1, q | k | v] of a KDA layer; empty for another.
    #[wasm_bindgen(js_name = convolutionState)]
    pub fn convolution_state(&mut self, layer: u32, slot: u32) -> Vec<f32> {
        let (model, shape) = self.parts();
        let Mixer::Kda(layer) = &model.layers[layer as usize].mixer else { return Vec::new() };
        let count = kda::tail_floats(&shape.kda);
        unsafe {
            let from = layer.tails.f32().add(slot as usize * count);
            core::slice::from_raw_parts(from, count).to_vec()
        }
    }

    /// [count, latent + shared key] of an MLA layer; empty for another.
    #[wasm_bindgen(js_name = latents)]
    pub fn latents(&mut self, layer: u32, pages: &[u32], count: u32) -> Vec<f32> {
        let (model, shape) = self.parts();
        let Mixer::Mla(layer) = &model.layers[layer as usize].mixer else { return Vec::new() };
        let width = shape.mla.width();
        let mut values = vec![0.0; count as usize * width];
        for (position, row) in values.chunks_exact_mut(width).enumerate() {
            unsafe { layer.latents.read(pages.as_ptr(), position, row.as_mut_ptr()) };
        }
        values
    }

    /// [rows, hidden].
    pub fn residual(&mut self) -> Vec<f32> {
        let (model, shape) = self.parts();
        let (hidden, stride) = (shape.hidden, pad16(shape.hidden));
        let mut values = Vec::with_capacity(model.plan.rows() * hidden);
        for row in 0..model.plan.rows() {
            let from = unsafe { model.work.residual.f32().add(row * stride) };
            values.extend_from_slice(unsafe { core::slice::from_raw_parts(from, hidden) });
        }
        values
    }

    /// [rows, experts per token], best first.
    #[wasm_bindgen(js_name = routedExperts)]
    pub fn routed_experts(&mut self) -> Vec<u32> {
        let (model, shape) = self.parts();
        model.work.feed.routing.experts[..model.plan.rows() * shape.moe.per_token].to_vec()
    }

    #[wasm_bindgen(js_name = routedWeights)]
    pub fn routed_weights(&mut self) -> Vec<f32> {
        let (model, shape) = self.parts();
        model.work.feed.routing.weights[..model.plan.rows() * shape.moe.per_token].to_vec()
    }

    /// [MoE layers][experts]; resets.
    #[wasm_bindgen(js_name = takeExpertUse)]
    pub fn take_expert_use(&mut self) -> Vec<u32> {
        let mut counts = Vec::new();
        for layer in &mut self.model().layers {
            if let Feed::Moe(layer) = &mut layer.feed {
                counts.extend_from_slice(&layer.use_counts);
                layer.use_counts.fill(0);
            }
        }
        counts
    }

    /// Floats from one row of logits to the next.
    #[wasm_bindgen(js_name = logitsStride)]
    pub fn logits_stride(&self) -> u32 {
        pad4(self.shape.vocabulary) as u32
    }
}

impl Cpu {
    fn model(&mut self) -> &mut Model {
        self.model.as_mut().expect("configured before use")
    }

    fn parts(&mut self) -> (&mut Model, &Shape) {
        (self.model.as_mut().expect("configured before use"), &self.shape)
    }
}

fn error(message: String) -> JsError {
    JsError::new(&message)
}
