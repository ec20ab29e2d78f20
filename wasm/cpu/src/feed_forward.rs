//! Dense feed-forward, shared expert and routed experts.

use crate::matmul::{clear_pads, project, Rows, Scratch, Store};
use crate::matrix::Matrix;
use crate::memory::{pad16, pad4, Buffer};
use crate::shape::Moe;
use crate::simd::*;
use core::arch::wasm32::*;

/// down(SiLU(gate x) * (up x)).
pub struct FeedForward {
    pub gate: Matrix,
    pub up: Matrix,
    pub down: Matrix,
}

pub struct MoeLayer {
    pub router: Matrix,
    pub bias: Vec<f32>,
    pub experts: Vec<FeedForward>,
    pub shared: Option<FeedForward>,
    /// Tokens routed to each expert since the counts were taken.
    pub use_counts: Vec<u32>,
}

/// Activations of a step: gate and up are [rows][pad16(widest intermediate)].
pub struct FeedForwardScratch {
    pub gate: Buffer,
    pub up: Buffer,
    /// Router scores, [rows][pad16(experts)].
    pub scores: Buffer,
    pub routing: Routing,
}

/// The choice of the last mixture of experts.
pub struct Routing {
    /// [rows][per_token], best first.
    pub experts: Vec<u32>,
    pub weights: Vec<f32>,
    /// Rows by expert: expert e has rows[starts[e]..starts[e + 1]], in order.
    starts: Vec<u32>,
    rows: Vec<u32>,
    /// The weight of each entry of `rows`.
    row_weights: Vec<f32>,
}

impl Routing {
    pub fn new(shape: &Moe, rows: usize) -> Routing {
        let pairs = rows * shape.per_token;
        Routing {
            experts: vec![0; pairs],
            weights: vec![0.0; pairs],
            starts: vec![0; shape.experts + 1],
            rows: vec![0; pairs],
            row_weights: vec![0.0; pairs],
        }
    }

    pub fn bytes(shape: &Moe, rows: usize) -> u64 {
        rows as u64 * shape.per_token as u64 * 16 + (shape.experts as u64 + 1) * 4
    }

    /// Sorts the chosen (row, expert) pairs by expert.
    fn group(&mut self, per_token: usize, count: usize) {
        let pairs = count * per_token;
        self.starts.fill(0);
        for &expert in &self.experts[..pairs] {
            self.starts[expert as usize + 1] += 1;
        }
        for i in 1..self.starts.len() {
            self.starts[i] += self.starts[i - 1];
        }
        let mut next = self.starts.clone();
        for pair in 0..pairs {
            let at = &mut next[self.experts[pair] as usize];
            self.rows[*at as usize] = (pair / per_token) as u32;
            self.row_weights[*at as usize] = self.weights[pair];
            *at += 1;
        }
    }
}

/// residual += down(SiLU(gate x) * (up x)) * weight for the rows that `map` lists (null: all, in
/// order); `weights` null: 1.
unsafe fn feed_forward(
    weight: &FeedForward,
    x: Rows,
    residual: Rows,
    map: *const u32,
    weights: *const f32,
    count: usize,
    work: &FeedForwardScratch,
    scratch: Scratch,
) {
    let width = pad16(weight.gate.rows);
    let (gate, up) = (Rows::new(work.gate.f32(), width), Rows::new(work.up.f32(), width));
    project(&weight.gate, x.at(map), count, gate, Store::Assign, scratch);
    project(&weight.up, x.at(map), count, up, Store::Assign, scratch);
    for row in 0..count {
        let factor = f32x4_splat(if weights.is_null() { 1.0 } else { *weights.add(row) });
        let (gate, up) = (gate.row(row), up.row(row));
        for i in (0..pad4(weight.gate.rows)).step_by(4) {
            let product = f32x4_mul(silu(load(gate.add(i))), load(up.add(i)));
            store(gate.add(i), f32x4_mul(product, factor));
        }
    }
    clear_pads(gate, count, weight.gate.rows);
    project(&weight.down, gate, count, residual.at(map), Store::Add, scratch);
}

/// residual += the feed-forward of x.
pub unsafe fn dense(
    weight: &FeedForward,
    x: Rows,
    residual: Rows,
    count: usize,
    work: &FeedForwardScratch,
    scratch: Scratch,
) {
    let (map, weights) = (core::ptr::null(), core::ptr::null());
    feed_forward(weight, x, residual, map, weights, count, work, scratch);
}

/// residual += shared expert + routed experts of x, each expert's weights read once. A row's
/// experts are added in the order of their index, whatever the other rows chose.
pub unsafe fn moe(
    shape: &Moe,
    layer: &mut MoeLayer,
    x: Rows,
    residual: Rows,
    count: usize,
    work: &mut FeedForwardScratch,
    scratch: Scratch,
) {
    let scores = Rows::new(work.scores.f32(), pad16(shape.experts));
    project(&layer.router, x, count, scores, Store::Assign, scratch);
    for row in 0..count {
        map(scores.row(row), shape.experts, sigmoid);
        let scores = core::slice::from_raw_parts(scores.row(row), shape.experts);
        let chosen = row * shape.per_token..(row + 1) * shape.per_token;
        let routing = &mut work.routing;
        let experts = &mut routing.experts[chosen.clone()];
        choose(shape, scores, &layer.bias, experts, &mut routing.weights[chosen]);
    }
    work.routing.group(shape.per_token, count);
    if let Some(shared) = &layer.shared {
        dense(shared, x, residual, count, work, scratch);
    }
    for (expert, weight) in layer.experts.iter().enumerate() {
        let start = work.routing.starts[expert] as usize;
        let count = work.routing.starts[expert + 1] as usize - start;
        if count == 0 {
            continue;
        }
        layer.use_counts[expert] += count as u32;
        let map = work.routing.rows.as_ptr().add(start);
        let weights = work.routing.row_weights.as_ptr().add(start);
        feed_forward(weight, x, residual, map, weights, count, work, scratch);
    }
}

/// The experts with the largest score + bias, ties to the lower index, and their weights: the
/// scores without bias, renormalised and scaled.
fn choose(shape: &Moe, scores: &[f32], bias: &[f32], experts: &mut [u32], weights: &mut [f32]) {
    for i in 0..experts.len() {
        let mut best = usize::MAX;
        let mut best_value = f32::NAN;
        for expert in 0..scores.len() {
            let value = scores[expert] + bias[expert];
            // The first expert left is taken where every score is NaN.
            let better =
                best == usize::MAX || value > best_value || best_value.is_nan() && !value.is_nan();
            if better && !experts[..i].contains(&(expert as u32)) {
                (best, best_value) = (expert, value);
            }
        }
        experts[i] = best as u32;
        weights[i] = scores[best];
    }
    let total = weights.iter().sum::<f32>() + 1e-20;
    for weight in weights {
        *weight = if shape.renormalize { *weight / total } else { *weight } * shape.scale;
    }
}
