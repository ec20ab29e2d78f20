//! Softmax and weighted sums over one tile of latents.

use crate::latents::TILE;
use crate::shape::Mla;
use crate::simd::*;
use core::arch::wasm32::*;

/// Turns the first `seen` scores into weights exp(score - largest), zeros behind them; updates
/// (largest, sum). Returns the factor for what was summed before. A NaN score makes all NaN.
pub unsafe fn weigh(shape: &Mla, scores: *mut f32, seen: usize, softmax: *mut f32) -> f32 {
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
pub struct Part {
    /// The tile.
    pub values: *const f32,
    /// Blocks of 16 columns in a row of the tile.
    pub blocks: usize,
    /// Positions of the tile that the row sees.
    pub seen: usize,
    /// [head][TILE].
    pub weights: *mut f32,
    /// [head][width].
    pub mixed: *mut f32,
    pub width: usize,
}

impl Part {
    /// mixed = keep * mixed + sum of weight * latent over what is seen, for H heads together.
    pub unsafe fn mix<const H: usize>(&self, keep: [f32; H]) {
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
