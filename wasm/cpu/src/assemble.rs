//! From named tensors to the sealed model.

use crate::feed_forward::{FeedForward, MoeLayer};
use crate::kda::{state_floats, tail_floats, KdaLayer};
use crate::latents::Latents;
use crate::matrix::Matrix;
use crate::memory::{pad16, Buffer};
use crate::mla::MlaLayer;
use crate::model::{Feed, Layer, Mixer, Model, Widths, Work};
use crate::shape::{Capacity, Plan, Shape};
use crate::threads::Pool;
use std::collections::HashMap;
use std::sync::Arc;

pub type Tensors = HashMap<String, Vec<Matrix>>;

/// What kind each layer is.
#[derive(Clone, Copy)]
pub struct LayerKind {
    pub mla: bool,
    pub moe: bool,
}

pub fn widths(tensors: &Tensors) -> Widths {
    let mut widths = Widths::default();
    for (key, matrices) in tensors {
        let (rows, columns) = (matrices[0].rows, matrices[0].columns);
        widths.input = widths.input.max(columns);
        if key.ends_with(".f_a") || key.ends_with(".g_a") {
            widths.rank = widths.rank.max(rows);
        }
        if key.ends_with(".dense.gate") {
            widths.dense = widths.dense.max(rows);
        } else if key.ends_with(".gate") {
            widths.expert = widths.expert.max(rows);
        }
    }
    widths
}

/// Bytes of the per-head f32 matrices that take the place of every kv_b.
pub fn derived_bytes(shape: &Shape, mla_layers: u64) -> u64 {
    let mla = &shape.mla;
    let keys = mla.latent.div_ceil(4) * 4 * pad16(mla.nope);
    let values = mla.value.div_ceil(4) * 4 * pad16(mla.latent);
    mla_layers * (mla.heads * (keys + values) * 4) as u64
}

pub fn assemble(
    shape: &Shape,
    kinds: &[LayerKind],
    mut tensors: Tensors,
    capacity: &Capacity,
    pool: Arc<Pool>,
) -> Result<Model, String> {
    let work = Work::new(shape, capacity, widths(&tensors))?;
    let mut parts = Parts { tensors: &mut tensors, shape, capacity };
    let layers = kinds
        .iter()
        .enumerate()
        .map(|(index, kind)| parts.layer(index, *kind))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Model {
        pool,
        // Not sealed: rows are read element by element.
        embed: parts.stack("embed")?.remove(0),
        head: parts.matrix("head")?,
        norm: parts.vector("norm", pad16(shape.hidden))?,
        layers,
        plan: Plan::default(),
        work,
    })
}

struct Parts<'a> {
    tensors: &'a mut Tensors,
    shape: &'a Shape,
    capacity: &'a Capacity,
}

impl Parts<'_> {
    fn stack(&mut self, key: &str) -> Result<Vec<Matrix>, String> {
        self.tensors.remove(key).ok_or_else(|| format!("configure: tensor \"{key}\" is missing"))
    }

    fn matrix(&mut self, key: &str) -> Result<Matrix, String> {
        let mut matrix = self.stack(key)?.remove(0);
        matrix.seal()?;
        Ok(matrix)
    }

    /// The first row as f32, followed by zeros up to `length`.
    fn vector(&mut self, key: &str, length: usize) -> Result<Buffer, String> {
        Buffer::from_slice(&self.stack(key)?[0].row(0), length)
    }

    fn layer(&mut self, index: usize, kind: LayerKind) -> Result<Layer, String> {
        let hidden = pad16(self.shape.hidden);
        Ok(Layer {
            mixer_norm: self.vector(&format!("{index}.mixer_norm"), hidden)?,
            feed_norm: self.vector(&format!("{index}.ffn_norm"), hidden)?,
            mixer: if kind.mla {
                Mixer::Mla(self.mla(&format!("{index}.mla"))?)
            } else {
                Mixer::Kda(self.kda(&format!("{index}.kda"))?)
            },
            feed: if kind.moe {
                Feed::Moe(self.moe(index)?)
            } else {
                Feed::Dense(self.feed_forward(&format!("{index}.dense"))?)
            },
        })
    }

    fn kda(&mut self, prefix: &str) -> Result<KdaLayer, String> {
        let shape = self.shape.kda;
        let slots = self.capacity.slots as u64;
        let a_log = self.stack(&format!("{prefix}.a_log"))?[0].row(0);
        // In f64, because the factor multiplies every log-decay.
        let rates = a_log.iter().map(|&a| -(a as f64).exp() as f32);
        let rate = rates.flat_map(|rate| vec![rate; shape.key_dim]).collect::<Vec<_>>();
        let keys = pad16(shape.key_channels());
        let mut matrix = |name: &str| self.matrix(&format!("{prefix}.{name}"));
        Ok(KdaLayer {
            q: matrix("q")?,
            k: matrix("k")?,
            v: matrix("v")?,
            f_a: matrix("f_a")?,
            f_b: matrix("f_b")?,
            b: matrix("b")?,
            g_a: matrix("g_a")?,
            g_b: matrix("g_b")?,
            o: matrix("o")?,
            convolutions: [
                self.taps(&format!("{prefix}.q_conv"))?,
                self.taps(&format!("{prefix}.k_conv"))?,
                self.taps(&format!("{prefix}.v_conv"))?,
            ],
            rate: Buffer::from_slice(&rate, keys)?,
            dt_bias: self.vector(&format!("{prefix}.dt_bias"), keys)?,
            o_norm: self.vector(&format!("{prefix}.o_norm"), pad16(shape.value_dim))?,
            state: Buffer::floats(slots * state_floats(&shape) as u64)?,
            tails: Buffer::floats(slots * tail_floats(&shape) as u64)?,
        })
    }

    /// [channels, taps] turned into [taps][channels].
    fn taps(&mut self, key: &str) -> Result<Buffer, String> {
        let weight = self.stack(key)?.remove(0);
        let column = |tap| (0..weight.rows).map(move |channel| (channel, tap));
        let values = (0..weight.columns).flat_map(column);
        let values = values.map(|(channel, tap)| weight.value(channel, tap)).collect::<Vec<_>>();
        Buffer::from_slice(&values, values.len())
    }

    fn mla(&mut self, prefix: &str) -> Result<MlaLayer, String> {
        let shape = self.shape.mla;
        let Capacity { pages, page_tokens, half_latents, .. } = *self.capacity;
        let kv_b = self.stack(&format!("{prefix}.kv_b"))?.remove(0);
        let head_rows = shape.nope + shape.value;
        let key = |head: usize| {
            Matrix::from_values(shape.latent, shape.nope, |row, column| {
                kv_b.value(head * head_rows + column, row)
            })
        };
        let value = |head: usize| {
            Matrix::from_values(shape.value, shape.latent, |row, column| {
                kv_b.value(head * head_rows + shape.nope + row, column)
            })
        };
        Ok(MlaLayer {
            q: self.matrix(&format!("{prefix}.q"))?,
            kv_a: self.matrix(&format!("{prefix}.kv_a"))?,
            kv_norm: self.vector(&format!("{prefix}.kv_norm"), pad16(shape.latent))?,
            keys: (0..shape.heads).map(key).collect::<Result<_, _>>()?,
            values: (0..shape.heads).map(value).collect::<Result<_, _>>()?,
            o: self.matrix(&format!("{prefix}.o"))?,
            latents: Latents::new(shape.width(), pages, page_tokens, half_latents)?,
        })
    }

    fn feed_forward(&mut self, prefix: &str) -> Result<FeedForward, String> {
        let mut matrix = |name: &str| self.matrix(&format!("{prefix}.{name}"));
        Ok(FeedForward { gate: matrix("gate")?, up: matrix("up")?, down: matrix("down")? })
    }

    fn moe(&mut self, index: usize) -> Result<MoeLayer, String> {
        let experts = self.shape.moe.experts;
        let mut stack = |name: &str| {
            let mut matrices = self.stack(&format!("{index}.moe.{name}"))?;
            matrices.iter_mut().try_for_each(Matrix::seal)?;
            Ok::<_, String>(matrices)
        };
        let (gate, up, down) = (stack("gate")?, stack("up")?, stack("down")?);
        let experts_of = gate.into_iter().zip(up).zip(down);
        let shared = format!("{index}.shared");
        let has_shared = self.tensors.contains_key(&format!("{shared}.gate"));
        Ok(MoeLayer {
            router: self.matrix(&format!("{index}.moe.router"))?,
            bias: self.stack(&format!("{index}.moe.router_bias"))?[0].row(0),
            experts: experts_of.map(|((gate, up), down)| FeedForward { gate, up, down }).collect(),
            shared: if has_shared { Some(self.feed_forward(&shared)?) } else { None },
            use_counts: vec![0; experts],
        })
    }
}
