//! Sizes: of the model, of what is allocated, of a step.

/// Sizes of the model, as `ModelShape` of the TypeScript side.
pub struct Shape {
    pub vocabulary: usize,
    pub hidden: usize,
    pub epsilon: f32,
    pub latent_epsilon: f32,
    pub kda: Kda,
    pub mla: Mla,
    pub moe: Moe,
}

#[derive(Clone, Copy)]
pub struct Kda {
    pub heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    pub taps: usize,
}

impl Kda {
    pub fn key_channels(&self) -> usize {
        self.heads * self.key_dim
    }

    pub fn value_channels(&self) -> usize {
        self.heads * self.value_dim
    }

    /// Channels of q | k | v.
    pub fn channels(&self) -> usize {
        2 * self.key_channels() + self.value_channels()
    }
}

#[derive(Clone, Copy)]
pub struct Mla {
    pub heads: usize,
    pub latent: usize,
    pub nope: usize,
    pub shared: usize,
    pub value: usize,
}

impl Mla {
    /// Values of one cached position: latent | shared key.
    pub fn width(&self) -> usize {
        self.latent + self.shared
    }
}

#[derive(Clone, Copy)]
pub struct Moe {
    pub experts: usize,
    pub per_token: usize,
    pub scale: f32,
    pub renormalize: bool,
}

/// What is allocated, as `Capacity` of the TypeScript side.
#[derive(Clone, Copy)]
pub struct Capacity {
    pub slots: usize,
    pub pages: usize,
    pub page_tokens: usize,
    pub rows: usize,
    pub logit_rows: usize,
    pub half_latents: bool,
    /// Threads that compute a step.
    pub threads: usize,
}

/// One sequence's part of a step.
#[derive(Clone, Copy)]
pub struct Sequence {
    pub slot: usize,
    pub row_start: usize,
    pub row_count: usize,
    pub past: usize,
    /// Its first entry in `Plan::pages`.
    pub page_start: usize,
}

#[derive(Default)]
pub struct Plan {
    pub tokens: Vec<u32>,
    pub sequences: Vec<Sequence>,
    pub pages: Vec<u32>,
    pub logit_rows: Vec<u32>,
}

impl Plan {
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }
}
