//! The Kimi Delta Attention mixer.

use crate::kda_recurrence::{advance, Token};
use crate::matmul::{clear_pads, Rows, Store};
use crate::matrix::Matrix;
use crate::memory::{pad16, Buffer};
use crate::norm::{rms_factor, square_sum};
use crate::products::{side_by_side, Inputs, Product, Scratch};
use crate::shape::{Kda, Plan, Sequence};
use crate::simd::*;
use core::arch::wasm32::*;

/// Added to the sum of squares when q and k are normalised.
const L2_EPSILON: f32 = 1e-6;
/// Rows whose gates are computed in one part of a job.
const GATE_ROWS: usize = 16;
/// Parts of the convolutions for each thread.
const CONVOLUTION_PARTS: usize = 4;
/// Parts of the recurrence for each thread, where a step has more rows than `RECURRENCE_ROWS`.
const RECURRENCE_PARTS: usize = 6;
const RECURRENCE_ROWS: usize = 64;

pub struct KdaLayer {
    pub q: Matrix,
    pub k: Matrix,
    pub v: Matrix,
    pub f_a: Matrix,
    pub f_b: Matrix,
    pub b: Matrix,
    pub g_a: Matrix,
    pub g_b: Matrix,
    pub o: Matrix,
    /// Of q, k, v: [taps][channels], oldest tap first.
    pub convolutions: [Buffer; 3],
    /// -exp(a_log) per head and key channel, zeros to a multiple of 16.
    pub rate: Buffer,
    /// Per head and key channel, zeros to a multiple of 16.
    pub dt_bias: Buffer,
    pub o_norm: Buffer,
    /// [slots][heads][blocks of 16 value channels][key_dim][16].
    pub state: Buffer,
    /// [slots][taps - 1][q | k | v].
    pub tails: Buffer,
}

/// Floats of one slot's recurrent state.
pub fn state_floats(shape: &Kda) -> usize {
    shape.heads * shape.key_dim * pad16(shape.value_dim)
}

/// Floats of one slot's convolution tails.
pub fn tail_floats(shape: &Kda) -> usize {
    shape.taps.saturating_sub(1) * shape.channels()
}

/// Activations of a step, one row a token, rows padded to 16 floats.
pub struct KdaScratch {
    pub q: Buffer,
    pub k: Buffer,
    pub v: Buffer,
    /// The narrow sides of the low-rank gates f and g.
    pub low: [Buffer; 2],
    /// Retention alpha in (0, 1], per key channel.
    pub alpha: Buffer,
    pub beta: Buffer,
    pub gate: Buffer,
    /// v and the output o, each head padded to 16 channels.
    pub v_heads: Buffer,
    pub o_heads: Buffer,
    pub o: Buffer,
}

impl KdaScratch {
    /// Floats of every buffer for `rows` rows, in the order of the fields.
    pub fn floats(shape: &Kda, rows: usize, rank: usize) -> [u64; 11] {
        let rows = rows as u64;
        let wide = |columns: usize| rows * pad16(columns) as u64;
        let (keys, values) = (shape.key_channels(), shape.value_channels());
        let heads = rows * (shape.heads * pad16(shape.value_dim)) as u64;
        let (low, beta) = (wide(rank), wide(shape.heads));
        let (keys, values) = (wide(keys), wide(values));
        [keys, keys, values, low, low, keys, beta, values, heads, heads, values]
    }

    pub fn new(shape: &Kda, rows: usize, rank: usize) -> Result<KdaScratch, String> {
        let floats = Self::floats(shape, rows, rank);
        let mut buffers = floats.iter().map(|&count| Buffer::floats(count));
        let mut next = || buffers.next().unwrap();
        Ok(KdaScratch {
            q: next()?,
            k: next()?,
            v: next()?,
            low: [next()?, next()?],
            alpha: next()?,
            beta: next()?,
            gate: next()?,
            v_heads: next()?,
            o_heads: next()?,
            o: next()?,
        })
    }
}

/// residual += mixer(x), and the slots' states advance.
pub unsafe fn kda(
    shape: &Kda,
    layer: &KdaLayer,
    plan: &Plan,
    x: Rows,
    residual: Rows,
    epsilon: f32,
    work: &KdaScratch,
    scratch: Scratch,
) {
    let count = plan.rows();
    project_inputs(shape, layer, x, count, work, scratch);
    activate(shape, layer, plan, work, scratch);
    recur(shape, layer, plan, work, scratch);
    scratch.over_rows(count, |from, to| gate_outputs(shape, layer, (from, to), epsilon, work));
    let o = Rows::new(work.o.f32(), pad16(shape.value_channels()));
    let input = Inputs::new(scratch, o, count).of(&layer.o);
    let how = Store::Add;
    side_by_side(scratch, &[Product { weight: &layer.o, input, count, output: residual, how }]);
}

/// q, k, v, write strengths and both gates, before anything is applied to them.
unsafe fn project_inputs(
    shape: &Kda,
    layer: &KdaLayer,
    x: Rows,
    count: usize,
    work: &KdaScratch,
    scratch: Scratch,
) {
    let (keys, values) = (pad16(shape.key_channels()), pad16(shape.value_channels()));
    let low = |i: usize, weight: &Matrix| Rows::new(work.low[i].f32(), pad16(weight.rows));
    let (f, g) = (low(0, &layer.f_a), low(1, &layer.g_a));
    let mut inputs = Inputs::new(scratch, x, count);
    let how = Store::Assign;
    let product =
        |(weight, output)| Product { weight, input: inputs.of(weight), count, output, how };
    let rows = |buffer: &Buffer, stride| Rows::new(buffer.f32(), stride);
    side_by_side(
        scratch,
        &[
            (&layer.q, rows(&work.q, keys)),
            (&layer.k, rows(&work.k, keys)),
            (&layer.v, rows(&work.v, values)),
            (&layer.f_a, f),
            (&layer.g_a, g),
            (&layer.b, rows(&work.beta, pad16(shape.heads))),
        ]
        .map(product),
    );
    clear_pads(f, count, layer.f_a.rows);
    clear_pads(g, count, layer.g_a.rows);
    let product = |weight, low, output| {
        let input = Inputs::new(scratch, low, count).of(weight);
        Product { weight, input, count, output, how }
    };
    side_by_side(
        scratch,
        &[
            product(&layer.f_b, f, rows(&work.alpha, keys)),
            product(&layer.g_b, g, rows(&work.gate, values)),
        ],
    );
}

/// Short convolutions, L2 norms of q and k, retention, write strength and output gate; v moves to
/// padded heads; the slots' tails advance.
unsafe fn activate(
    shape: &Kda,
    layer: &KdaLayer,
    plan: &Plan,
    work: &KdaScratch,
    scratch: Scratch,
) {
    let of_sequence = 3 * shape.heads;
    let convolutions = plan.sequences.len() * of_sequence;
    let row_parts = plan.rows().div_ceil(GATE_ROWS);
    // Of one token a convolution takes a third of a microsecond: too little for a part.
    let step = convolutions.div_ceil(scratch.pool.threads() * CONVOLUTION_PARTS);
    let convolution_parts = convolutions.div_ceil(step);
    scratch.pool.run(convolution_parts + row_parts, &|part, thread| {
        if part < convolution_parts {
            for unit in part * step..convolutions.min((part + 1) * step) {
                let sequence = &plan.sequences[unit / of_sequence];
                let (which, head) = (unit % 3, unit % of_sequence / 3);
                convolve(shape, layer, sequence, which, head, work, scratch.panel(thread));
            }
            return;
        }
        let first = (part - convolution_parts) * GATE_ROWS;
        for row in first..plan.rows().min(first + GATE_ROWS) {
            activate_gates(shape, layer, row, work);
        }
    });
}

/// Convolution with SiLU of one head of q, k or v (`which` 0, 1, 2), and what follows it.
unsafe fn convolve(
    shape: &Kda,
    layer: &KdaLayer,
    sequence: &Sequence,
    which: usize,
    head: usize,
    work: &KdaScratch,
    next_tail: *mut f32,
) {
    let keys = shape.key_channels();
    let (buffer, channels, width) = match which {
        0 => (&work.q, keys, shape.key_dim),
        1 => (&work.k, keys, shape.key_dim),
        _ => (&work.v, shape.value_channels(), shape.value_dim),
    };
    let (stride, first) = (pad16(channels), head * width);
    let u = Rows::new(buffer.f32().add(sequence.row_start * stride + first), stride);
    let tails = layer.tails.f32().add(sequence.slot * tail_floats(shape) + which * keys + first);
    let tail = Rows::new(tails, shape.channels());
    let weight = Rows::new(layer.convolutions[which].f32().add(first), channels);
    convolve_part(weight, shape.taps, width, u, sequence.row_count, tail, next_tail);
    let scale = if which == 0 { 1.0 / (shape.key_dim as f32).sqrt() } else { 1.0 };
    for t in 0..sequence.row_count {
        if which < 2 {
            l2_normalize(u.row(t), width, scale);
        } else {
            let row = (sequence.row_start + t) * shape.heads + head;
            let to = work.v_heads.f32().add(row * pad16(width));
            core::ptr::copy_nonoverlapping(u.row(t), to, width);
        }
    }
}

/// u becomes SiLU(convolution of tail | u); tail becomes the last taps - 1 rows of tail | u.
unsafe fn convolve_part(
    weight: Rows,
    taps: usize,
    channels: usize,
    u: Rows,
    count: usize,
    tail: Rows,
    next_tail: *mut f32,
) {
    let kept = taps - 1;
    // Row t of tail | u, where u begins at row `kept`.
    let history = |t: usize| if t < kept { tail.row(t) } else { u.row(t - kept) };
    for t in 0..kept {
        core::ptr::copy_nonoverlapping(history(count + t), next_tail.add(t * channels), channels);
    }
    // Backwards, because row t is an input of the rows after it.
    for t in (0..count).rev() {
        let out = u.row(t);
        let mut c = 0;
        while c + 4 <= channels {
            let mut y = zero();
            for w in 0..taps {
                y = fma(load(weight.row(w).add(c)), load(history(t + w).add(c)), y);
            }
            store(out.add(c), silu(y));
            c += 4;
        }
        while c < channels {
            let mut y = zero();
            for w in 0..taps {
                let (a, b) = (splat(weight.row(w).add(c)), splat(history(t + w).add(c)));
                y = fma(a, b, y);
            }
            *out.add(c) = f32x4_extract_lane::<0>(silu(y));
            c += 1;
        }
    }
    for t in 0..kept {
        core::ptr::copy_nonoverlapping(next_tail.add(t * channels), tail.row(t), channels);
    }
}

/// Retention, write strength and output gate of a row.
unsafe fn activate_gates(shape: &Kda, layer: &KdaLayer, row: usize, work: &KdaScratch) {
    let (keys, values) = (pad16(shape.key_channels()), pad16(shape.value_channels()));
    let alpha = work.alpha.f32().add(row * keys);
    for i in (0..keys).step_by(4) {
        let a = f32x4_add(load(alpha.add(i)), load(layer.dt_bias.f32().add(i)));
        let log_decay = f32x4_mul(load(layer.rate.f32().add(i)), softplus(a));
        store(alpha.add(i), exp(log_decay));
    }
    map(work.beta.f32().add(row * pad16(shape.heads)), shape.heads, sigmoid);
    map(work.gate.f32().add(row * values), values, sigmoid);
}

unsafe fn l2_normalize(x: *mut f32, width: usize, scale: f32) {
    let factor = scale / (square_sum(x, width) + L2_EPSILON).sqrt();
    map(x, width, |value| f32x4_mul(value, f32x4_splat(factor)));
}

/// The recurrence of all sequences, from v_heads to o_heads.
unsafe fn recur(shape: &Kda, layer: &KdaLayer, plan: &Plan, work: &KdaScratch, scratch: Scratch) {
    let of_sequence = shape.heads * pad16(shape.value_dim) / 16;
    let units = plan.sequences.len() * of_sequence;
    // One part a thread, the owner the first: a state stays in the cache of the core that changed
    // it last. Of many tokens the state is read once and the balance counts.
    let parts = if plan.rows() > RECURRENCE_ROWS { RECURRENCE_PARTS } else { 1 };
    let step = units.div_ceil(scratch.pool.threads() * parts);
    scratch.pool.run(units.div_ceil(step), &|part, _| {
        for unit in part * step..units.min((part + 1) * step) {
            let sequence = &plan.sequences[unit / of_sequence];
            recur_block(shape, layer, sequence, unit % of_sequence, work);
        }
    });
}

/// The recurrence over a sequence's rows for the sixteen value channels of `block`.
unsafe fn recur_block(
    shape: &Kda,
    layer: &KdaLayer,
    sequence: &Sequence,
    block: usize,
    work: &KdaScratch,
) {
    let keys = pad16(shape.key_channels());
    let head_stride = pad16(shape.value_dim);
    let row_stride = shape.heads * head_stride;
    let at = block * 16;
    let head = at / head_stride;
    let token = |t: usize| {
        let row = sequence.row_start + t;
        let key = row * keys + head * shape.key_dim;
        Token {
            q: work.q.f32().add(key),
            k: work.k.f32().add(key),
            alpha: work.alpha.f32().add(key),
            beta: *work.beta.f32().add(row * pad16(shape.heads) + head),
            v: work.v_heads.f32().add(row * row_stride + at),
            o: work.o_heads.f32().add(row * row_stride + at),
        }
    };
    let state = layer.state.f32().add(sequence.slot * state_floats(shape));
    advance(state.add(at * shape.key_dim), shape.key_dim, sequence.row_count, token);
}

/// o = o_norm * o / rms(o) * gate per head; heads close up.
unsafe fn gate_outputs(
    shape: &Kda,
    layer: &KdaLayer,
    (from, to): (usize, usize),
    epsilon: f32,
    work: &KdaScratch,
) {
    let values = pad16(shape.value_channels());
    let head_stride = pad16(shape.value_dim);
    for row in from..to {
        for head in 0..shape.heads {
            let from = work.o_heads.f32().add((row * shape.heads + head) * head_stride);
            let at = row * values + head * shape.value_dim;
            let (gate, to) = (work.gate.f32().add(at), work.o.f32().add(at));
            let factor = f32x4_splat(rms_factor(from, shape.value_dim, epsilon));
            for i in (0..head_stride).step_by(4) {
                let normed = f32x4_mul(load(from.add(i)), factor);
                store(from.add(i), f32x4_mul(normed, load(layer.o_norm.f32().add(i))));
            }
            let whole = shape.value_dim / 4 * 4;
            for i in (0..whole).step_by(4) {
                store(to.add(i), f32x4_mul(load(from.add(i)), load(gate.add(i))));
            }
            for i in whole..shape.value_dim {
                *to.add(i) = *from.add(i) * *gate.add(i);
            }
        }
    }
}
