//! The KDA recurrence over sixteen value channels of one head:
//!
//!   S <- diag(alpha) S;  e = beta (v - S^T k);  S <- S + k e^T;  o = S^T q
//!
//! The columns of S are independent, so sixteen of them (8 KiB for 128 key channels) stay in the
//! first-level cache over all tokens of a chunk. Correcting and reading for one token are fused
//! with decaying and predicting for the next: S is read and written once per token. A single token
//! decays S twice instead of storing it in between. The operations on each element and their order
//! are the same either way, so every chunking gives the same bits.

use crate::simd::*;
use core::arch::wasm32::*;

/// One token's inputs of one head: q, k, alpha [key_dim]; v and o [16].
#[derive(Clone, Copy)]
pub struct Token {
    pub q: *const f32,
    pub k: *const f32,
    pub alpha: *const f32,
    pub beta: f32,
    pub v: *const f32,
    pub o: *mut f32,
}

/// Runs `count` tokens over state [key_dim][16].
#[inline(always)]
pub unsafe fn advance(
    state: *mut f32,
    key_dim: usize,
    count: usize,
    token: impl Fn(usize) -> Token,
) {
    if count == 0 {
        return;
    }
    let mut now = token(0);
    if count == 1 {
        let predicted = predict::<false>(state, key_dim, &now);
        return correct::<true>(state, key_dim, &now, predicted);
    }
    let mut predicted = predict::<true>(state, key_dim, &now);
    for t in 1..count {
        let next = token(t);
        predicted = correct_and_predict(state, key_dim, &now, predicted, &next);
        now = next;
    }
    correct::<false>(state, key_dim, &now, predicted);
}

type Columns = [v128; 4];

#[inline(always)]
unsafe fn errors(token: &Token, predicted: Columns) -> Columns {
    let beta = f32x4_splat(token.beta);
    core::array::from_fn(|i| f32x4_mul(beta, f32x4_sub(load(token.v.add(i * 4)), predicted[i])))
}

/// Predicts v from the decayed S, which is stored if `STORE`.
unsafe fn predict<const STORE: bool>(state: *mut f32, key_dim: usize, token: &Token) -> Columns {
    let mut predicted = [zero(); 4];
    for d in 0..key_dim {
        let row = state.add(d * 16);
        let (k, alpha) = (splat(token.k.add(d)), splat(token.alpha.add(d)));
        for i in 0..4 {
            let s = f32x4_mul(load(row.add(i * 4)), alpha);
            predicted[i] = fma(k, s, predicted[i]);
            if STORE {
                store(row.add(i * 4), s);
            }
        }
    }
    predicted
}

/// Corrects S, decayed first if `DECAY`, and reads o from it.
unsafe fn correct<const DECAY: bool>(
    state: *mut f32,
    key_dim: usize,
    token: &Token,
    predicted: Columns,
) {
    let error = errors(token, predicted);
    let mut o = [zero(); 4];
    for d in 0..key_dim {
        let row = state.add(d * 16);
        let (k, q) = (splat(token.k.add(d)), splat(token.q.add(d)));
        for i in 0..4 {
            let mut s = load(row.add(i * 4));
            if DECAY {
                s = f32x4_mul(s, splat(token.alpha.add(d)));
            }
            let s = fma(k, error[i], s);
            o[i] = fma(q, s, o[i]);
            store(row.add(i * 4), s);
        }
    }
    for i in 0..4 {
        store(token.o.add(i * 4), o[i]);
    }
}

/// `correct` for `now`, then `predict` for `next`, in one pass over S.
unsafe fn correct_and_predict(
    state: *mut f32,
    key_dim: usize,
    now: &Token,
    predicted: Columns,
    next: &Token,
) -> Columns {
    let error = errors(now, predicted);
    let mut o = [zero(); 4];
    let mut predicted = [zero(); 4];
    for d in 0..key_dim {
        let row = state.add(d * 16);
        let (k, q) = (splat(now.k.add(d)), splat(now.q.add(d)));
        let (alpha, next_k) = (splat(next.alpha.add(d)), splat(next.k.add(d)));
        for i in 0..4 {
            let s = fma(k, error[i], load(row.add(i * 4)));
            o[i] = fma(q, s, o[i]);
            let s = f32x4_mul(s, alpha);
            predicted[i] = fma(next_k, s, predicted[i]);
            store(row.add(i * 4), s);
        }
    }
    for i in 0..4 {
        store(now.o.add(i * 4), o[i]);
    }
    predicted
}
