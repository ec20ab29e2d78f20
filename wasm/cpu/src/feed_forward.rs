//! Dense feed-forward, shared expert and routed experts.

use crate::matmul::{clear_pads, Rows, Store};
use crate::matrix::Matrix;
use crate::memory::{pad16, pad4, Buffer};
use crate::products::{side_by_side, stacked, Inputs, Product, Scratch};
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

/// Activations of a step. Gate and up have a row for each row of each feed-forward that runs: of a
/// dense layer [rows][pad16(width)], of a mixture first those of the shared expert, then the pairs
/// of row and expert sorted by expert.
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

/// One feed-forward of a block: which rows of x it takes, and its rows of gate and up.
struct Task<'a> {
    weight: &'a FeedForward,
    /// The rows of x; null: all in order.
    map: *const u32,
    /// A factor for each row; null: 1.
    weights: *const f32,
    count: usize,
    first: usize,
}

/// residual += the sum of the tasks' down(SiLU(gate x) * (up x)) * weight, in their order.
unsafe fn run(
    tasks: &[Task],
    x: Rows,
    residual: Rows,
    count: usize,
    work: &FeedForwardScratch,
    scratch: Scratch,
) {
    let Some(widest) = tasks.iter().map(|task| pad16(task.weight.gate.rows)).max() else { return };
    let (gate, up) = (Rows::new(work.gate.f32(), widest), Rows::new(work.up.f32(), widest));
    let behind = |rows: Rows, first: usize| Rows::new(rows.row(first), rows.stride);
    let mut inputs = Inputs::new(scratch, x, count);
    let mut products = Vec::with_capacity(tasks.len() * 2);
    for task in tasks {
        for (weight, rows) in [(&task.weight.gate, gate), (&task.weight.up, up)] {
            let input = inputs.listed(weight, task.count, task.map);
            let output = behind(rows, task.first);
            products.push(Product { weight, input, count: task.count, output, how: Store::Assign });
        }
    }
    side_by_side(scratch, &products);
    for task in tasks {
        let (gate, up) = (behind(gate, task.first), behind(up, task.first));
        scratch.over_rows(task.count, |from, to| activate(task, gate, up, (from, to)));
    }
    products.clear();
    for task in tasks {
        let weight = &task.weight.down;
        let input = Inputs::new(scratch, behind(gate, task.first), task.count).of(weight);
        let output = residual.at(task.map);
        products.push(Product { weight, input, count: task.count, output, how: Store::Add });
    }
    stacked(scratch, &products);
}

/// gate = SiLU(gate) * up * weight for rows [from, to) of a task.
unsafe fn activate(task: &Task, gate: Rows, up: Rows, (from, to): (usize, usize)) {
    let width = task.weight.gate.rows;
    for row in from..to {
        let factor = if task.weights.is_null() { 1.0 } else { *task.weights.add(row) };
        let factor = f32x4_splat(factor);
        let (gate, up) = (gate.row(row), up.row(row));
        for i in (0..pad4(width)).step_by(4) {
            let product = f32x4_mul(silu(load(gate.add(i))), load(up.add(i)));
            store(gate.add(i), f32x4_mul(product, factor));
        }
    }
    clear_pads(Rows::new(gate.row(from), gate.stride), to - from, width);
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
    run(&[Task { weight, map, weights, count, first: 0 }], x, residual, count, work, scratch);
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
    route(shape, layer, x, count, work, scratch);
    let mut tasks = Vec::with_capacity(layer.experts.len() + 1);
    let mut first = 0;
    if let Some(weight) = &layer.shared {
        let (map, weights) = (core::ptr::null(), core::ptr::null());
        tasks.push(Task { weight, map, weights, count, first });
        first = count;
    }
    let routing = &work.routing;
    for (expert, weight) in layer.experts.iter().enumerate() {
        let start = routing.starts[expert] as usize;
        let count = routing.starts[expert + 1] as usize - start;
        if count == 0 {
            continue;
        }
        layer.use_counts[expert] += count as u32;
        let map = routing.rows.as_ptr().add(start);
        let weights = routing.row_weights.as_ptr().add(start);
        tasks.push(Task { weight, map, weights, count, first: first + start });
    }
    run(&tasks, x, residual, count, work, scratch);
}

/// Chooses every row's experts and sorts the pairs by expert.
unsafe fn route(
    shape: &Moe,
    layer: &MoeLayer,
    x: Rows,
    count: usize,
    work: &mut FeedForwardScratch,
    scratch: Scratch,
) {
    let scores = Rows::new(work.scores.f32(), pad16(shape.experts));
    let weight = &layer.router;
    let input = Inputs::new(scratch, x, count).of(weight);
    let how = Store::Assign;
    side_by_side(scratch, &[Product { weight, input, count, output: scores, how }]);
    for row in 0..count {
        map(scores.row(row), shape.experts, sigmoid);
        let scores = core::slice::from_raw_parts(scores.row(row), shape.experts);
        let chosen = row * shape.per_token..(row + 1) * shape.per_token;
        let routing = &mut work.routing;
        let experts = &mut routing.experts[chosen.clone()];
        choose(shape, scores, &layer.bias, experts, &mut routing.weights[chosen]);
    }
    work.routing.group(shape.per_token, count);
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
