//! What `wasm/text.ts` calls. Arrays pass through buffers of this module's memory, given by
//! address, so that a row or a text is copied once.

mod byte_table;
mod candidates;
mod classes;
mod decode;
mod encode;
mod merge;
mod random;
mod route;
mod sample;
mod simd;
mod split;
mod vocabulary;

use crate::byte_table::PADDING;
use crate::candidates::Parameters;
use crate::encode::{Cursor, Scratch};
use crate::vocabulary::{Special, Vocabulary};
use std::cell::RefCell;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

fn error(message: String) -> JsError {
    JsError::new(&message)
}

#[wasm_bindgen]
pub struct Tokenizer {
    vocabulary: Rc<Vocabulary>,
    scratch: Rc<RefCell<Scratch>>,
}

#[wasm_bindgen]
impl Tokenizer {
    /// `ids`, `texts` and `skipped` are of one length.
    #[wasm_bindgen(constructor)]
    pub fn new(
        file: &[u8],
        ids: &[u32],
        texts: Vec<String>,
        skipped: &[u8],
        size: u32,
    ) -> Result<Tokenizer, JsError> {
        let specials = ids.iter().zip(texts).zip(skipped);
        let specials = specials
            .map(|((&id, text), &skipped)| Special { id, text, skipped: skipped != 0 })
            .collect();
        let vocabulary = Vocabulary::new(file, specials, size).map_err(error)?;
        let scratch = Rc::new(RefCell::new(Scratch::new()));
        Ok(Tokenizer { vocabulary: Rc::new(vocabulary), scratch })
    }

    pub fn rank_count(&self) -> u32 {
        self.vocabulary.ranks.len() as u32
    }

    pub fn start_encoding(&self, byte_length: usize) -> Encoding {
        Encoding {
            vocabulary: self.vocabulary.clone(),
            scratch: self.scratch.clone(),
            text: vec![0; byte_length + PADDING],
            cursor: Cursor::new(0, false),
            ids: Vec::new(),
        }
    }

    pub fn token_bytes(&self, id: u32) -> Result<Vec<u8>, JsError> {
        self.vocabulary.check_id(id).map_err(error)?;
        let mut bytes = Vec::new();
        self.vocabulary.append_bytes(id, &mut bytes);
        Ok(bytes)
    }

    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, JsError> {
        decode::decode(&self.vocabulary, ids, skip_special).map_err(error)
    }

    pub fn special_id(&self, text: &str) -> Option<u32> {
        self.vocabulary.special_id(text)
    }

    pub fn is_skipped(&self, id: u32) -> bool {
        self.vocabulary.is_skipped(id)
    }

    pub fn start_decoding(&self, skip_special: bool) -> Decoding {
        Decoding { vocabulary: self.vocabulary.clone(), skip_special, bytes: Vec::new() }
    }
}

/// The encoding of one text: reserve, write UTF-8 at `text_address`, begin, step until true, read.
#[wasm_bindgen]
pub struct Encoding {
    vocabulary: Rc<Vocabulary>,
    scratch: Rc<RefCell<Scratch>>,
    /// The text and PADDING zero bytes.
    text: Vec<u8>,
    cursor: Cursor,
    ids: Vec<u32>,
}

#[wasm_bindgen]
impl Encoding {
    pub fn reserve(&mut self, byte_length: usize) {
        self.text.resize(byte_length + PADDING, 0);
    }

    pub fn text_address(&mut self) -> *mut u8 {
        self.text.as_mut_ptr()
    }

    /// The text is the first `byte_length` bytes of what is reserved.
    pub fn begin(&mut self, byte_length: usize, allow_special: bool) {
        self.text.truncate(byte_length);
        self.text.resize(byte_length + PADDING, 0);
        self.cursor = Cursor::new(byte_length, allow_special);
        self.ids.clear();
        // English has some four bytes a token.
        self.ids.reserve(byte_length / 4);
    }

    /// Encodes about `bytes_max` bytes more; true when all are done.
    pub fn step(&mut self, bytes_max: usize) -> bool {
        let mut scratch = self.scratch.borrow_mut();
        self.cursor.step(&self.vocabulary, &mut scratch, &self.text, bytes_max, &mut self.ids)
    }

    pub fn ids_address(&self) -> *const u32 {
        self.ids.as_ptr()
    }

    pub fn ids_length(&self) -> usize {
        self.ids.len()
    }
}

#[wasm_bindgen]
pub struct Decoding {
    vocabulary: Rc<Vocabulary>,
    skip_special: bool,
    /// Bytes that no text has been made of.
    bytes: Vec<u8>,
}

#[wasm_bindgen]
impl Decoding {
    pub fn push(&mut self, id: u32) -> Result<String, JsError> {
        self.vocabulary.check_id(id).map_err(error)?;
        if !(self.skip_special && self.vocabulary.is_skipped(id)) {
            self.vocabulary.append_bytes(id, &mut self.bytes);
        }
        Ok(decode::take_complete(&mut self.bytes))
    }

    pub fn flush(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned()
    }
}

/// Ends of the pieces, in bytes, that the split rule cuts `text` into, without slices.
#[wasm_bindgen]
pub fn piece_ends(text: &[u8]) -> Vec<u32> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < text.len() {
        at = split::piece_end(text, at);
        ends.push(at as u32);
    }
    ends
}

#[wasm_bindgen]
pub struct Sampler(sample::Sampler);

#[wasm_bindgen]
impl Sampler {
    #[wasm_bindgen(constructor)]
    pub fn new(size: usize) -> Sampler {
        Sampler(sample::Sampler::new(size))
    }

    pub fn row_address(&mut self) -> *mut f32 {
        self.0.row().as_mut_ptr()
    }

    #[allow(clippy::too_many_arguments)]
    pub fn sample(
        &mut self,
        temperature: f64,
        top_k: u32,
        typical_p: f64,
        top_p: f64,
        min_p: f64,
        seed: f64,
        position: f64,
    ) -> Result<u32, JsError> {
        let seed = seed as u64;
        let parameters = Parameters { temperature, top_k, typical_p, top_p, min_p, seed };
        self.0.sample(&parameters, position as u64).map_err(error)
    }

    /// From the best of a row of the sampler's size, in order; -1 when it takes the whole row.
    /// `log_total`: ln of the sum of exp(logit / temperature) over the row.
    #[allow(clippy::too_many_arguments)]
    pub fn choose(
        &self,
        ids: &[u32],
        logits: &[f32],
        log_total: f64,
        temperature: f64,
        top_k: u32,
        typical_p: f64,
        top_p: f64,
        min_p: f64,
        seed: f64,
        position: f64,
    ) -> f64 {
        let seed = seed as u64;
        let parameters = Parameters { temperature, top_k, typical_p, top_p, min_p, seed };
        self.0.choose(ids, logits, log_total, &parameters, position as u64).map_or(-1.0, f64::from)
    }

    /// Log-probability of `id`, then pairs of the `count` best ids and theirs.
    pub fn logprobs(&mut self, id: u32, count: usize) -> Result<Vec<f64>, JsError> {
        let (own, top) = self.0.logprobs(id, count).map_err(error)?;
        let pairs = top.into_iter().flat_map(|(id, logprob)| [id as f64, logprob]);
        Ok(std::iter::once(own).chain(pairs).collect())
    }
}

#[wasm_bindgen]
pub struct Router(route::Router);

#[wasm_bindgen]
pub struct Selection {
    experts: Vec<u32>,
    weights: Vec<f32>,
}

#[wasm_bindgen]
impl Selection {
    pub fn take_experts(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.experts)
    }

    pub fn take_weights(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.weights)
    }
}

#[wasm_bindgen]
impl Router {
    #[wasm_bindgen(constructor)]
    pub fn new(expert_count: usize, experts_per_token: usize) -> Result<Router, JsError> {
        route::Router::new(expert_count, experts_per_token).map(Router).map_err(error)
    }

    pub fn select(
        &self,
        scores: &[f32],
        bias: &[f32],
        renormalize: bool,
        scale: f64,
    ) -> Result<Selection, JsError> {
        let (experts, weights) = self.0.select(scores, bias, renormalize, scale).map_err(error)?;
        Ok(Selection { experts, weights })
    }

    /// Counts, offsets and order, one after the other.
    pub fn group(&mut self, experts: &[u32]) -> Result<Vec<u32>, JsError> {
        Ok(self.0.group(experts).map_err(error)?.concat())
    }

    pub fn take_uses(&mut self) -> Vec<u32> {
        self.0.take_uses()
    }
}
