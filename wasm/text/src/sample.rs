//! Picks tokens from rows of logits.
//!
//! Tokens are ordered by (logit down, id up). The 256 best come first in every draw, all others
//! follow in the order of their ids: so most draws are decided by the best alone, and a device that
//! sends only those gives the same tokens as one that sends whole rows.

use crate::candidates::{BEST, Choice, Parameters, Token, choose, choose_typical};
use crate::random::uniform;
use crate::simd::{BLOCK, Exp2, block_max, find_between};

/// Tokens less probable than the best by this factor, over the vocabulary size, weigh nothing: all
/// of them together weigh less than the rounding of a sum in f32.
const NEGLIGIBLE: f64 = 1.0 / (1u64 << 24) as f64;

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

pub struct Sampler {
    size: usize,
    /// [size] padded to whole blocks with -inf.
    logits: Vec<f32>,
    block_max: Vec<f32>,
    /// Sum of the weights of a block's tokens.
    block_sum: Vec<f64>,
    /// Largest logit of the row.
    max: f32,
    best: Vec<Token>,
    order: Vec<f32>,
}

impl Sampler {
    pub fn new(size: usize) -> Sampler {
        let blocks = size.div_ceil(BLOCK);
        Sampler {
            size,
            logits: vec![f32::NEG_INFINITY; blocks * BLOCK],
            block_max: vec![0.0; blocks],
            block_sum: vec![0.0; blocks],
            max: 0.0,
            best: Vec::new(),
            order: Vec::new(),
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
        if parameters.is_greedy() {
            return Ok(self.argmax());
        }
        self.collect_best(BEST.min(self.size));
        let top_k = parameters.top_k as usize;
        let mut cut = KEEP_ALL;
        let mut total = f64::NAN; // not asked for
        if top_k == 0 || top_k > self.best.len() {
            if top_k > 0 && top_k < self.size {
                cut = self.top_k(top_k);
            }
            total = self.mass(parameters.scale(), cut, true);
        }
        match choose(&self.best, self.size, total, parameters, position) {
            Choice::Token(id) => Ok(id),
            Choice::Beyond if parameters.typical_p < 1.0 => {
                Ok(self.sample_typical(cut, total, parameters, position))
            }
            Choice::Beyond => Ok(self.sample_beyond(cut, total, parameters, position)),
        }
    }

    /// A draw from the best tokens of a row, in order, and the natural logarithm of the sum of
    /// exp(logit / temperature) over the row; None when these can't decide.
    pub fn choose(
        &self,
        ids: &[u32],
        logits: &[f32],
        log_total: f64,
        parameters: &Parameters,
        position: u64,
    ) -> Option<u32> {
        let token = |(id, logit): (&u32, &f32)| Token { logit: *logit, id: *id };
        let best: Vec<Token> = ids.iter().zip(logits).map(token).collect();
        let total = (log_total - best[0].logit as f64 / parameters.temperature).exp();
        match choose(&best, self.size, total, parameters, position) {
            Choice::Token(id) => Some(id),
            Choice::Beyond => None,
        }
    }

    /// Natural log-probability of `id`, and of the `count` best tokens, best first.
    pub fn logprobs(&mut self, id: u32, count: usize) -> Result<(f64, Vec<(u32, f64)>), String> {
        self.scan("compute log-probabilities")?;
        let log_sum = self.max as f64 + self.mass(1.0, KEEP_ALL, false).ln();
        self.collect_best(count.min(self.size));
        let logprob = |logit: f32| logit as f64 - log_sum;
        let top = self.best.iter().map(|token| (token.id, logprob(token.logit))).collect();
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

    /// Collects the `count` best tokens in order.
    fn collect_best(&mut self, count: usize) {
        self.best.clear();
        if count == 0 {
            return;
        }
        self.collect_at_least(count);
        if count < self.best.len() {
            self.best.select_nth_unstable_by(count - 1, Token::best_first);
            self.best.truncate(count);
        }
        self.best.sort_unstable_by(Token::best_first);
    }

    /// Collects, in the order of ids, at least the `count` best tokens: the count-th largest of the
    /// blocks' maxima bounds them from below, and only blocks above the bound are looked into.
    fn collect_at_least(&mut self, count: usize) {
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
        let size = self.size;
        for (block, _) in self.block_max.iter().enumerate().filter(|(_, max)| **max >= lowest) {
            let start = block * BLOCK;
            find_between(&self.logits[start..start + BLOCK], lowest, f32::INFINITY, |at, logit| {
                // The padding is -inf.
                if start + at < size {
                    self.best.push(Token { logit, id: (start + at) as u32 });
                }
            });
        }
    }

    /// The cut behind the `count`-th best token. Leaves the 256 best as they are.
    fn top_k(&mut self, count: usize) -> Cut {
        let best = std::mem::take(&mut self.best);
        self.collect_at_least(count);
        let (_, &mut token, _) = self.best.select_nth_unstable_by(count - 1, Token::best_first);
        self.best = best;
        Cut { logit: token.logit, id: token.id }
    }

    /// The cut that min-p makes: relative to the best token.
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

    /// Sum of the weights exp((logit - max) * scale) of what `cut` keeps; `keep_sums`: also of each
    /// block.
    fn mass(&mut self, scale: f32, cut: Cut, keep_sums: bool) -> f64 {
        let (exp2, floor) = (Exp2::new(), self.floor());
        let scale = scale * std::f32::consts::LOG2_E;
        let shape = [self.max, scale, floor];
        // Tokens that equal the cut's logit are kept up to its id.
        let until_cut = exp2.block_sum(shape, cut.logit);
        let behind_cut = exp2.block_sum(shape, cut.logit.next_up());
        let cut_block = cut.id as usize / BLOCK;
        let mut total = 0.0;
        for (block, logits) in self.logits.chunks_exact(BLOCK).enumerate() {
            let max = self.block_max[block];
            let sum = if max < cut.logit || (max - self.max) * scale < floor {
                0.0
            } else if block < cut_block {
                until_cut(logits)
            } else if block > cut_block {
                behind_cut(logits)
            } else {
                sum_until(&exp2, logits, shape, cut, block * BLOCK)
            };
            total += sum;
            if keep_sums {
                self.block_sum[block] = sum;
            }
        }
        total
    }

    /// The exponent of 2 below which weights are 0.
    fn floor(&self) -> f32 {
        (NEGLIGIBLE / self.logits.len() as f64).log2() as f32
    }

    /// A draw when more than the 256 best are kept. `total`: of what `cut` keeps, by block in
    /// `block_sum`. The nucleus is not searched for: a token drawn outside of it is drawn again,
    /// which gives the same distribution and mostly costs one sum.
    fn sample_beyond(
        &mut self,
        cut: Cut,
        total: f64,
        parameters: &Parameters,
        position: u64,
    ) -> u32 {
        let scale = parameters.scale();
        let kept = cut.and(self.min_p(parameters));
        let kept_total = if parameters.min_p > 0.0 { self.mass(scale, kept, true) } else { total };
        let last = *self.best.last().expect("the best");
        let of_best = |token: &&Token| kept.keeps(token.logit, token.id);
        let weights: Vec<(Token, f64)> = self
            .best
            .iter()
            .filter(of_best)
            .map(|token| (*token, parameters.weight(token.logit, self.max)))
            .collect();
        // Sums of the others alone.
        for (token, weight) in &weights {
            let sum = &mut self.block_sum[token.id as usize / BLOCK];
            *sum = (*sum - weight).max(0.0);
        }
        let after = Cut { logit: last.logit, id: last.id };
        let mut refused: Option<Token> = None;
        for attempt in 0.. {
            let mut left = uniform(parameters.seed, position, attempt) * kept_total;
            for (token, weight) in &weights {
                if left < *weight {
                    return token.id;
                }
                left -= weight;
            }
            let token = self.walk(left, scale, kept, after);
            if parameters.top_p >= 1.0 {
                return token.id;
            }
            if refused.is_some_and(|refused| Token::best_first(&refused, &token).is_le()) {
                continue;
            }
            // Those that are better: all that are not worse, less the token itself.
            let own = Cut { logit: token.logit, id: token.id };
            let better =
                self.mass(scale, own, false) - parameters.weight(token.logit, self.max);
            if better < parameters.top_p * total {
                return token.id;
            }
            refused = Some(token);
        }
        unreachable!("a draw ends")
    }

    /// The token at which the weights, in the order of ids, exceed `left`; of those that `kept`
    /// keeps and that come after `after` in the order of tokens.
    fn walk(&self, mut left: f64, scale: f32, kept: Cut, after: Cut) -> Token {
        let mut chosen = 0;
        for (block, sum) in self.block_sum.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
            chosen = block;
            if left < *sum {
                break;
            }
            left -= sum;
        }
        // A block may hold none when its sum is only rounding: then the nearest before that does.
        (0..=chosen)
            .rev()
            .find_map(|block| self.walk_block(block, left, scale, kept, after))
            .unwrap_or(Token { logit: after.logit, id: after.id })
    }

    fn walk_block(
        &self,
        block: usize,
        mut left: f64,
        scale: f32,
        kept: Cut,
        after: Cut,
    ) -> Option<Token> {
        let start = block * BLOCK;
        let logits = &self.logits[start..start + BLOCK];
        let mut weights = [0.0; BLOCK];
        let scale = scale * std::f32::consts::LOG2_E;
        Exp2::new().weigh_block(logits, &mut weights, [self.max, scale, self.floor()]);
        let mut found = None;
        for (at, (&logit, &weight)) in logits.iter().zip(&weights).enumerate() {
            let id = (start + at) as u32;
            if weight == 0.0 || !kept.keeps(logit, id) || after.keeps(logit, id) {
                continue;
            }
            found = Some(Token { logit, id });
            if left < weight as f64 {
                break;
            }
            left -= weight as f64;
        }
        found
    }

    /// A draw among the typical of what `cut` keeps, by quickselect over all of them.
    fn sample_typical(
        &mut self,
        cut: Cut,
        total: f64,
        parameters: &Parameters,
        position: u64,
    ) -> u32 {
        self.best.clear();
        self.collect(f32::NEG_INFINITY);
        self.best.retain(|token| cut.keeps(token.logit, token.id));
        choose_typical(&self.best, self.max, total, parameters, position)
    }
}

/// Sum of the weights of what `cut` keeps of the block from token `start`.
fn sum_until(exp2: &Exp2, logits: &[f32], shape: [f32; 3], cut: Cut, start: usize) -> f64 {
    let mut weights = [0.0; BLOCK];
    exp2.weigh_block(logits, &mut weights, shape);
    let kept = |at: &usize| cut.keeps(logits[*at], (start + *at) as u32);
    (0..BLOCK).filter(kept).map(|at| weights[at] as f64).sum()
}
