//! The Kimi Delta Attention mixer.

use crate::kda_recurrence::{advance, Token};
use crate::matmul::{clear_pads, project, Rows, Scratch, Store};
use crate::matrix::Matrix;
use crate::memory::{pad16, Buffer};
use crate::norm::{rms_factor, square_sum};
use crate::shape::{Kda, Plan, Sequence};
use crate::simd::*;
use core::arch::wasm32::*;

/// Added to the sum of squares when q and k are normalised.
const L2_EPSILON: f32 = 1e-6;

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
    /// The narrow side of the low-rank gates.
    pub low: Buffer,
    /// Retention alpha in (0, 1], per key channel.
    pub alpha: Buffer,
    pub beta: Buffer,
    pub gate: Buffer,
    /// v and the output o, each head padded to 16 channels.
    pub v_heads: Buffer,
    pub o_heads: Buffer,
    pub o: Buffer,
    /// taps - 1 rows of the widest of q, k, v.
    pub tail: Buffer,
}

impl KdaScratch {
    /// Floats of every buffer for `rows` rows, in the order of the fields.
    pub fn floats(shape: &Kda, rows: usize, rank: usize) -> [u64; 11] {
        let rows = rows as u64;
        let wide = |columns: usize| rows * pad16(columns) as u64;
        let (keys, values) = (shape.key_channels(), shape.value_channels());
        let heads = rows * (shape.heads * pad16(shape.value_dim)) as u64;
        let tail = (shape.taps.saturating_sub(1) * keys.max(values)) as u64;
        let (low, beta) = (wide(rank), wide(shape.heads));
        let (keys, values) = (wide(keys), wide(values));
        [keys, keys, values, low, keys, beta, values, heads, heads, values, tail]
    }

    pub fn new(shape: &Kda, rows: usize, rank: usize) -> Result<KdaScratch, String> {
        let floats = Self::floats(shape, rows, rank);
        let mut buffers = floats.iter().map(|&count| Buffer::floats(count));
        let mut next = || buffers.next().unwrap();
        Ok(KdaScratch {
            q: next()?,
            k: next()?,
            v: next()?,
            low: next()?,
            alpha: next()?,
            beta: next()?,
            gate: next()?,
            v_heads: next()?,
            o_heads: next()?,
            o: next()?,
            tail: next()?,
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
    let (keys, values) = (pad16(shape.key_channels()), pad16(shape.value_channels()));
    let to = |weight: &Matrix, input: Rows, buffer: &Buffer, stride: usize| {
        let output = Rows::new(buffer.f32(), stride);
        project(weight, input, count, output, Store::Assign, scratch);
    };
    let gated = |down: &Matrix, up: &Matrix, buffer: &Buffer, stride: usize| {
        let low = Rows::new(work.low.f32(), pad16(down.rows));
        to(down, x, &work.low, low.stride);
        clear_pads(low, count, down.rows);
        to(up, low, buffer, stride);
    };
    to(&layer.q, x, &work.q, keys);
    to(&layer.k, x, &work.k, keys);
    to(&layer.v, x, &work.v, values);
    to(&layer.b, x, &work.beta, pad16(shape.heads));
    gated(&layer.f_a, &layer.f_b, &work.alpha, keys);
    gated(&layer.g_a, &layer.g_b, &work.gate, values);
    convolve(shape, layer, plan, work);
    activate(shape, layer, count, work);
    for sequence in &plan.sequences {
        recur(shape, layer, sequence, work);
    }
    gate_outputs(shape, layer, count, epsilon, work);
    project(&layer.o, Rows::new(work.o.f32(), values), count, residual, Store::Add, scratch);
}

/// Short convolution with SiLU over q, k and v in place; the slots' tails advance.
unsafe fn convolve(shape: &Kda, layer: &KdaLayer, plan: &Plan, work: &KdaScratch) {
    let (keys, values) = (shape.key_channels(), shape.value_channels());
    let parts = [(&work.q, keys, 0), (&work.k, keys, keys), (&work.v, values, 2 * keys)];
    for sequence in &plan.sequences {
        let tails = layer.tails.f32().add(sequence.slot * tail_floats(shape));
        for (part, (buffer, channels, offset)) in parts.into_iter().enumerate() {
            let stride = pad16(channels);
            convolve_part(
                layer.convolutions[part].f32(),
                shape.taps,
                channels,
                Rows::new(buffer.f32().add(sequence.row_start * stride), stride),
                sequence.row_count,
                Rows::new(tails.add(offset), shape.channels()),
                work.tail.f32(),
            );
        }
    }
}

/// u becomes SiLU(convolution of tail | u); tail becomes the last taps - 1 rows of tail | u.
unsafe fn convolve_part(
    weight: *const f32,
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
                y = fma(load(weight.add(w * channels + c)), load(history(t + w).add(c)), y);
            }
            store(out.add(c), silu(y));
            c += 4;
        }
        while c < channels {
            let mut y = zero();
            for w in 0..taps {
                let (a, b) = (splat(weight.add(w * channels + c)), splat(history(t + w).add(c)));
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

/// L2 norms of q and k, retention, write strength and output gate; v moves to padded heads.
unsafe fn activate(shape: &Kda, layer: &KdaLayer, count: usize, work: &KdaScratch) {
    let (keys, values) = (pad16(shape.key_channels()), pad16(shape.value_channels()));
    let head_stride = pad16(shape.value_dim);
    let scale = 1.0 / (shape.key_dim as f32).sqrt();
    for row in 0..count {
        let (q, k) = (work.q.f32().add(row * keys), work.k.f32().add(row * keys));
        let v = work.v.f32().add(row * values);
        let v_heads = work.v_heads.f32().add(row * shape.heads * head_stride);
        for head in 0..shape.heads {
            l2_normalize(q.add(head * shape.key_dim), shape.key_dim, scale);
            l2_normalize(k.add(head * shape.key_dim), shape.key_dim, 1.0);
            core::ptr::copy_nonoverlapping(
                v.add(head * shape.value_dim),
                v_heads.add(head * head_stride),
                shape.value_dim,
            );
        }
        let alpha = work.alpha.f32().add(row * keys);
        for i in (0..keys).step_by(4) {
            let a = f32x4_add(load(alpha.add(i)), load(layer.dt_bias.f32().add(i)));
            let log_decay = f32x4_mul(load(layer.rate.f32().add(i)), softplus(a));
            store(alpha.add(i), exp(log_decay));
        }
        map(work.beta.f32().add(row * pad16(shape.heads)), shape.heads, sigmoid);
        map(work.gate.f32().add(row * values), values, sigmoid);
    }
}

unsafe fn l2_normalize(x: *mut f32, width: usize, scale: f32) {
    let factor = scale / (square_sum(x, width) + L2_EPSILON).sqrt();
    map(x, width, |value| f32x4_mul(value, f32x4_splat(factor)));
}

/// The recurrence over a sequence's rows, from v_heads to o_heads.
unsafe fn recur(shape: &Kda, layer: &KdaLayer, sequence: &Sequence, work: &KdaScratch) {
    let keys = pad16(shape.key_channels());
    let head_stride = pad16(shape.value_dim);
    let row_stride = shape.heads * head_stride;
    let state = layer.state.f32().add(sequence.slot * state_floats(shape));
    for head in 0..shape.heads {
        for block in 0..head_stride / 16 {
            let at = head * head_stride + block * 16;
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
            let columns = state.add(at * shape.key_dim);
            advance(columns, shape.key_dim, sequence.row_count, token);
        }
    }
}

/// o = o_norm * o / rms(o) * gate per head; heads close up.
unsafe fn gate_outputs(
    shape: &Kda,
    layer: &KdaLayer,
    count: usize,
    epsilon: f32,
    work: &KdaScratch,
) {
    let values = pad16(shape.value_channels());
    let head_stride = pad16(shape.value_dim);
    for row in 0..count {
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
