//! Decisions from a list of tokens: the best of a row, or all of it.

use std::cmp::Ordering;

use crate::random::uniform;

/// Tokens of a row that come first in a draw.
pub const BEST: usize = 256;

pub struct Parameters {
    pub temperature: f64,
    pub top_k: u32,
    pub typical_p: f64,
    pub top_p: f64,
    pub min_p: f64,
    pub seed: u64,
}

impl Parameters {
    /// In f32 a scale this large leaves only the best their weight, and is at last infinite.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || !self.scale().is_finite()
    }

    pub fn scale(&self) -> f32 {
        (1.0 / self.temperature) as f32
    }

    /// exp((logit - max) / temperature).
    pub fn weight(&self, logit: f32, max: f32) -> f64 {
        ((logit as f64 - max as f64) / self.temperature).exp()
    }
}

#[derive(Clone, Copy)]
pub struct Token {
    pub logit: f32,
    pub id: u32,
}

impl Token {
    pub fn best_first(a: &Token, b: &Token) -> Ordering {
        b.logit.partial_cmp(&a.logit).expect("no NaN").then(a.id.cmp(&b.id))
    }
}

pub enum Choice {
    Token(u32),
    /// It takes the whole row.
    Beyond,
}

/// A token with its weight.
#[derive(Clone, Copy)]
struct Weighed {
    token: Token,
    weight: f64,
    /// Distance of its surprise from the expected one.
    deviation: f64,
}

/// A draw from the best tokens of a row of `size`, in order. `total`: the weights' sum over all
/// that top-k keeps, where that is more than `best`.
pub fn choose(
    best: &[Token],
    size: usize,
    total: f64,
    parameters: &Parameters,
    position: u64,
) -> Choice {
    let max = best[0].logit;
    if parameters.is_greedy() {
        return Choice::Token(best[0].id);
    }
    let top_k = parameters.top_k as usize;
    let count = if top_k > 0 { top_k.min(best.len()) } else { best.len() };
    let is_all = count < best.len() || top_k == count || count == size;
    let mut kept = weigh(&best[..count], max, parameters);
    if is_all {
        let sum = kept.iter().map(|item| item.weight).sum();
        keep_typical(&mut kept, sum, parameters);
        let sum = sum_of(&kept);
        keep_nucleus(&mut kept, sum, parameters);
        keep_min_p(&mut kept, parameters);
        return Choice::Token(draw(&kept, uniform(parameters.seed, position, 0)));
    }
    if parameters.typical_p < 1.0 {
        return Choice::Beyond;
    }
    let nucleus = parameters.top_p * total;
    let reaches_nucleus = parameters.top_p < 1.0 && sum_of(&kept) >= nucleus;
    let reaches_min_p = kept[count - 1].weight < parameters.min_p;
    if reaches_nucleus || reaches_min_p {
        keep_nucleus(&mut kept, total, parameters);
        keep_min_p(&mut kept, parameters);
        return Choice::Token(draw(&kept, uniform(parameters.seed, position, 0)));
    }
    // All of the best are kept, and more. What min-p or a large top-k keeps of the others is not
    // known here.
    if parameters.min_p > 0.0 || top_k > 0 {
        return Choice::Beyond;
    }
    let mut left = uniform(parameters.seed, position, 0) * total;
    for item in &kept {
        if left < item.weight {
            return Choice::Token(item.token.id);
        }
        left -= item.weight;
    }
    Choice::Beyond
}

/// A draw with typical-p from all `tokens`, in their order. `total`: their weights' sum.
pub fn choose_typical(
    tokens: &[Token],
    max: f32,
    total: f64,
    parameters: &Parameters,
    position: u64,
) -> u32 {
    let mut kept = weigh(tokens, max, parameters);
    keep_typical(&mut kept, total, parameters);
    let sum = sum_of(&kept);
    keep_nucleus(&mut kept, sum, parameters);
    keep_min_p(&mut kept, parameters);
    draw(&kept, uniform(parameters.seed, position, 0))
}

fn weigh(tokens: &[Token], max: f32, parameters: &Parameters) -> Vec<Weighed> {
    let item = |token: &Token| Weighed {
        token: *token,
        weight: parameters.weight(token.logit, max),
        deviation: 0.0,
    };
    tokens.iter().map(item).collect()
}

fn sum_of(items: &[Weighed]) -> f64 {
    items.iter().map(|item| item.weight).sum()
}

/// Locally typical sampling (Meister et al. 2022): of the tokens ordered by how far their surprise
/// is from the entropy, the shortest prefix with `typical_p` of the weight.
fn keep_typical(items: &mut Vec<Weighed>, total: f64, parameters: &Parameters) {
    if parameters.typical_p >= 1.0 {
        return;
    }
    items.retain(|item| item.weight > 0.0);
    let surprise = |item: &Weighed| total.ln() - item.weight.ln();
    let entropy: f64 = items.iter().map(|item| item.weight / total * surprise(item)).sum();
    for item in items.iter_mut() {
        item.deviation = (surprise(item) - entropy).abs();
    }
    keep_prefix(items, parameters.typical_p * total, |a, b| {
        a.deviation.total_cmp(&b.deviation).then(a.token.id.cmp(&b.token.id))
    });
}

/// The shortest prefix of the best tokens with `top_p` of `total`.
fn keep_nucleus(items: &mut Vec<Weighed>, total: f64, parameters: &Parameters) {
    if parameters.top_p < 1.0 {
        keep_prefix(items, parameters.top_p * total, |a, b| Token::best_first(&a.token, &b.token));
    }
}

/// Tokens at least `min_p` as probable as the best of them.
fn keep_min_p(items: &mut Vec<Weighed>, parameters: &Parameters) {
    let best = items.iter().fold(0.0, |best: f64, item| best.max(item.weight));
    items.retain(|item| item.weight >= parameters.min_p * best);
}

/// Keeps the shortest prefix, in `order`, whose weights reach `target`; the items stay where they
/// are. Quickselect by weight, O(n).
fn keep_prefix(
    items: &mut Vec<Weighed>,
    mut target: f64,
    order: impl Fn(&Weighed, &Weighed) -> Ordering,
) {
    let mut sorted = items.clone();
    let mut rest = sorted.as_mut_slice();
    while rest.len() > 1 {
        let middle = rest.len() / 2;
        rest.select_nth_unstable_by(middle, &order);
        let sum = sum_of(&rest[..middle]);
        if sum >= target {
            rest = &mut rest[..middle];
        } else {
            target -= sum;
            rest = &mut rest[middle..];
        }
    }
    let last = rest[0];
    items.retain(|item| order(item, &last) != Ordering::Greater);
}

/// The first token at which the weights exceed `share` of their sum.
fn draw(items: &[Weighed], share: f64) -> u32 {
    let mut left = share * sum_of(items);
    for item in items {
        if left < item.weight {
            return item.token.id;
        }
        left -= item.weight;
    }
    // Rounding alone leads here.
    items.iter().rfind(|item| item.weight > 0.0).expect("a token").token.id
}
