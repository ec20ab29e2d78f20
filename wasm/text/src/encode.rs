//! Text to tokens: slices, special tokens, pieces, merges.

use crate::byte_table::{PADDING, head, mix};
use crate::classes::decode;
use crate::merge::Merger;
use crate::split::piece_end;
use crate::vocabulary::Vocabulary;

/// Text is cut into blocks of this many characters before all else, as the released tokenizer does.
const BLOCK_CHARACTERS: usize = 400_000;
/// Longest run of white space, or of anything else, in one slice of a block.
const RUN_CHARACTERS_MAX: usize = 25_000;

const CACHE_BITS: u32 = 14;
/// Longest piece in bytes that is cached: its length takes the 16th byte of the key.
const CACHED_BYTES_MAX: usize = 15;
const CACHED_IDS_MAX: usize = 5;

/// The tokens of one piece.
#[derive(Clone, Copy)]
struct Cached {
    /// The piece's bytes, and its length in the last.
    key: (u64, u64),
    count: u32,
    ids: [u32; CACHED_IDS_MAX],
}

/// What encoding keeps from text to text: recently seen pieces by hash, and working memory.
pub struct Scratch {
    cache: Vec<Cached>,
    merger: Merger,
}

impl Scratch {
    pub fn new() -> Scratch {
        let empty = Cached { key: (0, 0), count: 0, ids: [0; CACHED_IDS_MAX] };
        Scratch { cache: vec![empty; 1 << CACHE_BITS], merger: Merger::default() }
    }

    #[inline]
    fn encode_piece(
        &mut self,
        vocabulary: &Vocabulary,
        text: &[u8],
        (start, end): (usize, usize),
        ids: &mut Vec<u32>,
    ) {
        let length = end - start;
        if length > CACHED_BYTES_MAX {
            return self.merger.merge(&vocabulary.ranks, text, (start, end), ids);
        }
        let (low, high) = head(text, start, length);
        let key = (low, high | (length as u64) << 56);
        let slot = (mix(key.0, key.1) >> (64 - CACHE_BITS)) as usize;
        let cached = &mut self.cache[slot];
        let before = ids.len();
        if cached.key == key {
            // A copy of fixed size is a few instructions, one of any size a call.
            ids.extend_from_slice(&cached.ids);
            ids.truncate(before + cached.count as usize);
            return;
        }
        self.merger.merge(&vocabulary.ranks, text, (start, end), ids);
        let new = &ids[before..];
        if new.len() <= CACHED_IDS_MAX {
            cached.key = key;
            cached.count = new.len() as u32;
            cached.ids[..new.len()].copy_from_slice(new);
        }
    }
}

/// Where the encoding of a text stands: each end lies inside the one before.
pub struct Cursor {
    at: usize,
    /// Length of the text; PADDING zero bytes follow it.
    end: usize,
    block_end: usize,
    slice_end: usize,
    /// Start of the next special token, or the slice's end.
    segment_end: usize,
    /// End and id of the special token at `segment_end`.
    special: Option<(usize, u32)>,
    allow_special: bool,
}

impl Cursor {
    pub fn new(length: usize, allow_special: bool) -> Cursor {
        Cursor {
            at: 0,
            end: length,
            block_end: 0,
            slice_end: 0,
            segment_end: 0,
            special: None,
            allow_special,
        }
    }

    /// Encodes at most `bytes_max` bytes, rounded up to whole pieces; true when all are done.
    pub fn step(
        &mut self,
        vocabulary: &Vocabulary,
        scratch: &mut Scratch,
        text: &[u8],
        bytes_max: usize,
        ids: &mut Vec<u32>,
    ) -> bool {
        debug_assert_eq!(text.len(), self.end + PADDING);
        let stop = self.at.saturating_add(bytes_max).min(self.end);
        while self.at < stop {
            if self.at == self.segment_end {
                self.next_segment(vocabulary, text, ids);
            }
            let segment_end = self.segment_end;
            let segment = &text[..segment_end];
            let mut at = self.at;
            while at < segment_end.min(stop) {
                let end = piece_end(segment, at);
                scratch.encode_piece(vocabulary, text, (at, end), ids);
                at = end;
            }
            self.at = at;
        }
        if self.at == self.segment_end {
            self.take_special(ids);
        }
        self.at == self.end
    }

    fn take_special(&mut self, ids: &mut Vec<u32>) {
        if let Some((end, id)) = self.special.take() {
            ids.push(id);
            self.at = end;
            self.segment_end = end;
        }
    }

    fn next_segment(&mut self, vocabulary: &Vocabulary, text: &[u8], ids: &mut Vec<u32>) {
        self.take_special(ids);
        if self.at == self.block_end {
            self.block_end = block_end(&text[..self.end], self.at);
        }
        if self.at == self.slice_end {
            self.slice_end = slice_end(&text[..self.block_end], self.at);
        }
        self.segment_end = self.slice_end;
        if self.allow_special && self.at < self.slice_end {
            if let Some((start, end, id)) = vocabulary.find_special(text, self.at, self.slice_end) {
                self.segment_end = start;
                self.special = Some((end, id));
            }
        }
    }
}

fn block_end(text: &[u8], start: usize) -> usize {
    if text.len() - start <= BLOCK_CHARACTERS {
        return text.len();
    }
    let is_first = |byte: &u8| (*byte as i8) >= -0x40;
    let characters = text[start..].iter().enumerate().filter(|(_, byte)| is_first(byte));
    characters.map(|(at, _)| start + at).nth(BLOCK_CHARACTERS).unwrap_or(text.len())
}

/// End of the slice at `start`: where a run of white space or of anything else would grow too long.
fn slice_end(text: &[u8], start: usize) -> usize {
    if text.len() - start <= RUN_CHARACTERS_MAX {
        return text.len();
    }
    let (mut at, mut run, mut run_is_space) = (start, 0, false);
    while at < text.len() {
        let (character, length) = decode(text, at);
        let is_space = is_python_space(character);
        if is_space != run_is_space {
            run = 0;
            run_is_space = is_space;
        }
        run += 1;
        if run > RUN_CHARACTERS_MAX {
            return at;
        }
        at += length;
    }
    at
}

/// Python's `str.isspace`: bidirectional class WS, B or S, or category Zs.
fn is_python_space(character: u32) -> bool {
    matches!(
        character,
        0x09..=0x0d | 0x1c..=0x20 | 0x85 | 0xa0 | 0x1680 | 0x2000..=0x200a
            | 0x2028 | 0x2029 | 0x202f | 0x205f | 0x3000
    )
}
