//! Picks tokens from rows of logits.
//!
//! Every filter keeps a prefix of the tokens ordered by (logit down, id up), so that each is a cut
//! in
//! that order. A cut is found from few candidates: the k-th largest of the maxima of all blocks
//! bounds
//! the k-th largest logit from below, and only blocks above the bound are looked into.

use crate::random::uniform;
use crate::simd::{BLOCK, Exp2, block_max, find_between, mask_block};

/// Blocks looked into first for a nucleus, which is mostly small; then all.
const NUCLEUS_BLOCKS: [usize; 2] = [64, 512];
/// Buckets of a histogram over logits.
const BUCKETS: usize = 1024;
/// Tokens less probable than the best by this factor, over the vocabulary size, get weight 0: all
/// of
/// them together weigh less than the rounding of a sum in f32.
const NEGLIGIBLE: f64 = 1.0 / (1u64 << 24) as f64;

pub struct Parameters {
    pub temperature: f64,
    pub top_k: u32,
    pub top_p: f64,
    pub min_p: f64,
    pub seed: u64,
}

/// The last token that a filter keeps.
#[derive(Clone, Copy)]
struct Cut {
    logit: f32,
    id: u32,
}

const KEEP_ALL: Cut = Cut { logit: f32::NEG_INFINITY, id: u32::MAX };

impl Cut {
    fn keeps(self, logit: f32, id: u32) -> bool {
        logit > self.logit || logit == self.logit && id <= self.id
    }

    /// The cut that keeps what both keep.
    fn and(self, other: Cut) -> Cut {
        if other.keeps(self.logit, self.id) { self } else { other }
    }
}

type Candidate = (f32, u32);

fn best_first(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.0.partial_cmp(&a.0).expect("no NaN").then(a.1.cmp(&b.1))
}

pub struct Sampler {
    size: usize,
    /// [size] padded to whole blocks with -inf.
    logits: Vec<f32>,
    weights: Vec<f32>,
    block_max: Vec<f32>,
    /// Sum of a block's weights.
    block_sum: Vec<f64>,
    /// Largest logit of the row.
    max: f32,
    candidates: Vec<Candidate>,
    order: Vec<f32>,
    /// Sum of what is measured per bucket.
    buckets: Vec<f64>,
}

impl Sampler {
    pub fn new(size: usize) -> Sampler {
        let blocks = size.div_ceil(BLOCK);
        Sampler {
            size,
            logits: vec![f32::NEG_INFINITY; blocks * BLOCK],
            weights: vec![0.0; blocks * BLOCK],
            block_max: vec![0.0; blocks],
            block_sum: vec![0.0; blocks],
            max: 0.0,
            candidates: Vec::new(),
            order: Vec::new(),
            buckets: vec![0.0; BUCKETS],
        }
    }

    /// The row that the next call reads, [size].
    pub fn row(&mut self) -> &mut [f32] {
        &mut self.logits[..self.size]
    }

    /// Index of the largest of the row or, with a temperature, a draw. NaN, +inf and a row of only
    /// -inf are errors.
    pub fn sample(&mut self, parameters: &Parameters, position: u64) -> Result<u32, String> {
        self.scan("sample token")?;
        // In f32 a scale this large leaves only the best their weight, and is at last infinite.
        let scale = (1.0 / parameters.temperature) as f32;
        if parameters.temperature == 0.0 || !scale.is_finite() {
            return Ok(self.argmax());
        }
        let mut cut = match parameters.top_k as usize {
            0 => KEEP_ALL,
            count if count >= self.size => KEEP_ALL,
            count => self.top_k(count),
        };
        let min_p = self.min_p(parameters);
        // Only the nucleus needs the weights of what min-p drops.
        if parameters.top_p >= 1.0 {
            cut = cut.and(min_p);
        }
        self.weigh(scale, cut);
        if parameters.top_p < 1.0 {
            cut = self.nucleus(parameters.top_p, scale).and(min_p);
            self.mask(cut);
        }
        Ok(self.draw(uniform(parameters.seed, position)))
    }

    /// Natural log-probability of `id`, and of the `count` best tokens, best first.
    pub fn logprobs(&mut self, id: u32, count: usize) -> Result<(f64, Vec<(u32, f64)>), String> {
        self.scan("compute log-probabilities")?;
        self.weigh(1.0, KEEP_ALL);
        let log_sum = self.max as f64 + self.block_sum.iter().sum::<f64>().ln();
        let count = count.min(self.size);
        if count > 0 {
            self.collect_best(count);
            if count < self.candidates.len() {
                self.candidates.select_nth_unstable_by(count - 1, best_first);
                self.candidates.truncate(count);
            }
            self.candidates.sort_unstable_by(best_first);
        } else {
            self.candidates.clear();
        }
        let logprob = |logit: f32| logit as f64 - log_sum;
        let top = self.candidates.iter().map(|(logit, id)| (*id, logprob(*logit))).collect();
        Ok((logprob(self.logits[id as usize]), top))
    }

    /// Sets the maxima and refuses a row that has none that is finite.
    fn scan(&mut self, action: &str) -> Result<(), String> {
        let mut max = f32::NEG_INFINITY;
        for (block, own) in self.logits.chunks_exact(BLOCK).zip(&mut self.block_max) {
            *own = block_max(block);
            if own.is_nan() || *own == f32::INFINITY {
                max = f32::NAN;
                break;
            }
            max = max.max(*own);
        }
        self.max = max;
        if max.is_finite() {
            return Ok(());
        }
        let bad = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
        Err(match self.logits[..self.size].iter().position(bad) {
            Some(id) => {
                format!("{action}: wanted finite logits, found {} at {id}", self.logits[id])
            }
            None => format!("{action}: wanted a finite logit, found only -inf"),
        })
    }

    fn argmax(&self) -> u32 {
        let block = self.block_max.iter().position(|max| *max == self.max).expect("a maximum");
        let start = block * BLOCK;
        let at = self.logits[start..].iter().position(|logit| *logit == self.max);
        (start + at.expect("the block's maximum")) as u32
    }

    /// Sets the weights of what `cut` keeps; a block without any has sum 0 and stale weights.
    fn weigh(&mut self, scale: f32, cut: Cut) {
        let (exp2, floor) = (Exp2::new(), self.floor());
        let scale = scale * std::f32::consts::LOG2_E;
        let blocks = self.logits.chunks_exact(BLOCK).zip(self.weights.chunks_exact_mut(BLOCK));
        let sums = self.block_max.iter().zip(&mut self.block_sum);
        for ((logits, weights), (max, sum)) in blocks.zip(sums) {
            *sum = match *max >= cut.logit && (max - self.max) * scale >= floor {
                true => exp2.weigh_block(logits, weights, [self.max, scale, floor]),
                false => 0.0,
            };
        }
        if cut.logit > f32::NEG_INFINITY {
            self.mask(cut);
        }
    }

    /// The exponent of 2 below which weights are 0.
    fn floor(&self) -> f32 {
        (NEGLIGIBLE / self.size as f64).log2() as f32
    }

    /// Sets the weights of what `cut` drops to 0.
    fn mask(&mut self, cut: Cut) {
        for (block, sum) in self.block_sum.iter_mut().enumerate().filter(|(_, sum)| **sum > 0.0) {
            if self.block_max[block] < cut.logit {
                *sum = 0.0;
                continue;
            }
            let start = block * BLOCK;
            let logits = &self.logits[start..start + BLOCK];
            let weights = &mut self.weights[start..start + BLOCK];
            // Of the block with the cut's id, the tokens behind it that equal it go one by one.
            if (start..start + BLOCK).contains(&(cut.id as usize)) {
                let behind = cut.id as usize + 1 - start;
                for (weight, logit) in weights.iter_mut().zip(logits).skip(behind) {
                    if *logit == cut.logit {
                        *weight = 0.0;
                    }
                }
            }
            *sum = mask_block(logits, weights, cut.logit, start <= cut.id as usize);
        }
    }

    /// Collects, in the order of ids, at least the `count` best tokens: all from the `count`-th
    /// largest block maximum up.
    fn collect_best(&mut self, count: usize) {
        let bound = if count >= self.block_max.len() {
            f32::NEG_INFINITY
        } else {
            self.order.clear();
            self.order.extend_from_slice(&self.block_max);
            *self.order.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1
        };
        self.collect(bound);
    }

    /// Collects the tokens with logits from `lowest` up, in the order of ids.
    fn collect(&mut self, lowest: f32) {
        self.collect_between(lowest, f32::INFINITY, |_| true);
    }

    /// Collects the tokens with logits from `low` to `high` that are `wanted`, in the order of ids.
    fn collect_between(&mut self, low: f32, high: f32, wanted: impl Fn(f32) -> bool) {
        self.candidates.clear();
        for (block, _) in self.block_max.iter().enumerate().filter(|(_, max)| **max >= low) {
            let start = block * BLOCK;
            find_between(&self.logits[start..start + BLOCK], low, high, |at, logit| {
                if wanted(logit) {
                    self.candidates.push((logit, (start + at) as u32));
                }
            });
        }
        // The padding is -inf.
        if low == f32::NEG_INFINITY {
            self.candidates.retain(|(_, id)| (*id as usize) < self.size);
        }
    }

    fn top_k(&mut self, count: usize) -> Cut {
        let mut left = count;
        if count < self.block_max.len() {
            self.collect_best(count);
        } else {
            let lowest = self.block_max.iter().fold(self.max, |a, b| a.min(*b));
            // Most rows reach about as far below the least maximum as that is below the largest.
            let range = (self.max - lowest.max(f32::MIN)) * 3.0;
            left -= self.collect_bucket(range, count as f64, true) as usize;
        }
        let (_, &mut (logit, id), _) = self.candidates.select_nth_unstable_by(left - 1, best_first);
        Cut { logit, id }
    }

    /// Collects the bucket of a histogram over `range` below the largest logit in which the
    /// weights,
    /// or with `counted` the numbers, of tokens from the best down reach `target`; returns the sum
    /// before it.
    fn collect_bucket(&mut self, range: f32, target: f64, counted: bool) -> f64 {
        let (max, width) = (self.max, BUCKETS as f32 / range.max(f32::MIN_POSITIVE));
        // Never rises with the logit, so that buckets are in the order of the tokens.
        let bucket = |logit: f32| (((max - logit) * width) as usize).min(BUCKETS - 1);
        self.buckets.fill(0.0);
        for (block, sum) in self.block_sum.iter().enumerate() {
            let start = block * BLOCK;
            let end = (start + BLOCK).min(self.size);
            if counted {
                for logit in &self.logits[start..end] {
                    self.buckets[bucket(*logit)] += 1.0;
                }
            } else if *sum > 0.0 {
                for (logit, weight) in self.logits[start..end].iter().zip(&self.weights[start..end])
                {
                    self.buckets[bucket(*logit)] += *weight as f64;
                }
            }
        }
        let (mut chosen, mut before) = (0, 0.0);
        while chosen + 1 < BUCKETS && before + self.buckets[chosen] < target {
            before += self.buckets[chosen];
            chosen += 1;
        }
        // Bounds a bucket too wide, as they are rounded.
        let edge = |bucket: usize| max - bucket as f32 / width;
        let low = if chosen + 2 < BUCKETS { edge(chosen + 2) } else { f32::NEG_INFINITY };
        let high = if chosen > 1 { edge(chosen - 1) } else { f32::INFINITY };
        self.collect_between(low, high, |logit| bucket(logit) == chosen);
        before
    }

    fn min_p(&self, parameters: &Parameters) -> Cut {
        if parameters.min_p <= 0.0 {
            return KEEP_ALL;
        }
        // The smallest f32 that is not below the bound.
        let bound = self.max as f64 + parameters.temperature * parameters.min_p.ln();
        let near = bound as f32;
        let logit = if (near as f64) < bound { near.next_up() } else { near };
        Cut { logit, id: u32::MAX }
    }

    /// Keeps the shortest prefix of the weighed tokens that has `share` of their weight.
    fn nucleus(&mut self, share: f64, scale: f32) -> Cut {
        let mut target = share * self.block_sum.iter().sum::<f64>();
        for blocks in NUCLEUS_BLOCKS {
            self.collect_best(blocks);
            let weights = self.candidates.iter().map(|(_, id)| self.weight(*id));
            if weights.sum::<f64>() >= target {
                return self.prefix(target);
            }
        }
        let range = -self.floor() * std::f32::consts::LN_2 / scale;
        target -= self.collect_bucket(range, target, false);
        self.prefix(target)
    }

    /// Weight of a token; a block of sum 0 has none.
    fn weight(&self, id: u32) -> f64 {
        let is_weighed = self.block_sum[id as usize / BLOCK] > 0.0;
        if is_weighed { self.weights[id as usize] as f64 } else { 0.0 }
    }

    /// Where the candidates' weights, best first, reach `target`: quickselect by weight, O(n).
    fn prefix(&mut self, mut target: f64) -> Cut {
        let mut candidates = std::mem::take(&mut self.candidates);
        let mut rest = candidates.as_mut_slice();
        while rest.len() > 1 {
            let middle = rest.len() / 2;
            rest.select_nth_unstable_by(middle, best_first);
            let sum: f64 = rest[..middle].iter().map(|(_, id)| self.weight(*id)).sum();
            if sum >= target {
                rest = &mut rest[..middle];
            } else {
                target -= sum;
                rest = &mut rest[middle..];
            }
        }
        let (logit, id) = rest[0];
        self.candidates = candidates;
        Cut { logit, id }
    }

    /// The first token in the order of ids at which the weights exceed `share` of their sum.
    fn draw(&self, share: f64) -> u32 {
        let mut left = share * self.block_sum.iter().sum::<f64>();
        let mut chosen = 0;
        for (block, sum) in self.block_sum.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
            chosen = block;
            if left < *sum {
                break;
            }
            left -= sum;
        }
        let start = chosen * BLOCK;
        let mut last = start;
        for (at, weight) in self.weights[start..start + BLOCK].iter().enumerate() {
            if *weight > 0.0 {
                last = start + at;
                if left < *weight as f64 {
                    break;
                }
                left -= *weight as f64;
            }
        }
        last as u32
    }
}
