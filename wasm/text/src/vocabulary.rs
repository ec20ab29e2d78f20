//! A vocabulary: the ranks of a tiktoken.model file, then the slots of special tokens.

use crate::byte_table::{ByteTable, PADDING};
use base64::{Engine, prelude::BASE64_STANDARD};

const RESERVED_START: &str = "<|reserved_token_";
const RESERVED_END: &str = "|>";
/// Most bytes of a bad line or token that an error quotes.
const QUOTE_BYTES_MAX: usize = 40;

pub struct Special {
    pub id: u32,
    pub text: String,
    /// Left out of text that is decoded for reading.
    pub skipped: bool,
}

pub struct Vocabulary {
    /// String i is the token of rank i.
    pub ranks: ByteTable,
    /// String i is the text of specials[i].
    special_table: ByteTable,
    specials: Vec<Special>,
    /// Slot (id - rank count) -> index in `specials`, sorted by id.
    by_id: Vec<(u32, u32)>,
    /// First bytes of special tokens.
    starts_special: [bool; 256],
    pub size: u32,
}

impl Vocabulary {
    /// Errors name the line or token, what was wanted and what was found.
    pub fn new(file: &[u8], specials: Vec<Special>, size: u32) -> Result<Vocabulary, String> {
        let ranks = read_ranks(file, size)?;
        let mut special_table = ByteTable::new(specials.len());
        let mut by_id = Vec::with_capacity(specials.len());
        let mut starts_special = [false; 256];
        starts_special[RESERVED_START.as_bytes()[0] as usize] = true;
        for (index, special) in specials.iter().enumerate() {
            let Special { id, text, .. } = special;
            let fail = |rest: String| Err(format!("add special token {text:?} {id}: {rest}"));
            if text.is_empty() {
                return fail("wanted a text, found none".into());
            }
            if (*id as usize) < ranks.len() || *id >= size {
                return fail(format!("wanted an id from {} to below {size}", ranks.len()));
            }
            if special_table.insert(text.as_bytes()).is_err() {
                return fail("wanted each text once, found it twice".into());
            }
            by_id.push((*id, index as u32));
            starts_special[text.as_bytes()[0] as usize] = true;
        }
        by_id.sort_unstable();
        if let Some(pair) = by_id.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let text = &specials[pair[1].1 as usize].text;
            return Err(format!(
                "add special token {text:?} {}: wanted each id once, found it twice",
                pair[0].0
            ));
        }
        Ok(Vocabulary { ranks, special_table, specials, by_id, starts_special, size })
    }

    fn special(&self, id: u32) -> Option<&Special> {
        let at = self.by_id.binary_search_by_key(&id, |entry| entry.0).ok()?;
        Some(&self.specials[self.by_id[at].1 as usize])
    }

    pub fn check_id(&self, id: u32) -> Result<(), String> {
        match id < self.size {
            true => Ok(()),
            false => Err(format!("decode token {id}: wanted an id below {}", self.size)),
        }
    }

    /// Appends the token's bytes; `id` must be in the vocabulary.
    pub fn append_bytes(&self, id: u32, bytes: &mut Vec<u8>) {
        if let Some(token) = self.ranks.get(id as usize) {
            bytes.extend_from_slice(token);
        } else if let Some(special) = self.special(id) {
            bytes.extend_from_slice(special.text.as_bytes());
        } else {
            bytes.extend_from_slice(format!("{RESERVED_START}{id}{RESERVED_END}").as_bytes());
        }
    }

    /// Special tokens marked so, and slots without a name.
    pub fn is_skipped(&self, id: u32) -> bool {
        id as usize >= self.ranks.len()
            && id < self.size
            && self.special(id).is_none_or(|special| special.skipped)
    }

    pub fn special_id(&self, text: &str) -> Option<u32> {
        let mut padded = text.as_bytes().to_vec();
        padded.resize(text.len() + PADDING, 0);
        match self.special_table.find(&padded, 0, text.len()) {
            Some(index) => Some(self.specials[index as usize].id),
            None => self
                .reserved_at(text.as_bytes())
                .filter(|(_, length)| *length == text.len())
                .map(|(id, _)| id),
        }
    }

    /// The slot without a name whose text `bytes` starts with, and that text's length.
    fn reserved_at(&self, bytes: &[u8]) -> Option<(u32, usize)> {
        let rest = bytes.strip_prefix(RESERVED_START.as_bytes())?;
        let digits = rest.iter().take(10).take_while(|byte| byte.is_ascii_digit()).count();
        if !rest[digits..].starts_with(RESERVED_END.as_bytes()) || rest[0] == b'0' {
            return None;
        }
        let id: u32 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        let is_free =
            id as usize >= self.ranks.len() && id < self.size && self.special(id).is_none();
        is_free.then_some((id, RESERVED_START.len() + digits + RESERVED_END.len()))
    }

    /// First special token in `text[start..end]`, the longest where several start: (start, end,
    /// id).
    pub fn find_special(
        &self,
        text: &[u8],
        start: usize,
        end: usize,
    ) -> Option<(usize, usize, u32)> {
        for at in start..end {
            if !self.starts_special[text[at] as usize] {
                continue;
            }
            let reserved = self.reserved_at(&text[at..end]);
            let longest = self.special_table.longest().min(end - at);
            let named = (1..=longest).rev().find_map(|length| {
                let index = self.special_table.find(text, at, length)?;
                Some((self.specials[index as usize].id, length))
            });
            let found = named.into_iter().chain(reserved).max_by_key(|(_, length)| *length);
            if let Some((id, length)) = found {
                return Some((at, at + length, id));
            }
        }
        None
    }
}

fn quote(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(QUOTE_BYTES_MAX)];
    let dots = if cut.len() < bytes.len() { "..." } else { "" };
    format!("{:?}{dots}", String::from_utf8_lossy(cut))
}

/// One line: the token's bytes and its rank.
fn read_line(line: &[u8], size: u32) -> Result<(u32, Vec<u8>), String> {
    let wanted = || format!("wanted \"base64 rank\", found {}", quote(line));
    let space = line.iter().position(|byte| *byte == b' ').ok_or_else(wanted)?;
    let (word, rank) = (&line[..space], &line[space + 1..]);
    let token = BASE64_STANDARD
        .decode(word)
        .map_err(|error| format!("wanted base64, found {} ({error})", quote(word)))?;
    if token.is_empty() {
        return Err(wanted());
    }
    let is_number = !rank.is_empty() && rank.iter().all(u8::is_ascii_digit);
    let number = is_number.then(|| std::str::from_utf8(rank).ok()?.parse().ok()).flatten();
    match number {
        None => Err(format!("wanted a rank, found {}", quote(rank))),
        Some(number) if number >= size => {
            Err(format!("wanted a rank below the vocabulary size {size}, found {number}"))
        }
        Some(number) => Ok((number, token)),
    }
}

/// All lines `base64 rank`, in any order; empty ones are passed over.
fn read_ranks(file: &[u8], size: u32) -> Result<ByteTable, String> {
    let mut tokens = Vec::new();
    for (index, line) in file.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let (rank, token) = read_line(line, size)
            .map_err(|error| format!("read tokenizer line {}: {error}", index + 1))?;
        tokens.push((rank, index + 1, token));
    }
    tokens.sort_unstable();
    let mut table = ByteTable::new(tokens.len());
    let mut lines = Vec::with_capacity(tokens.len());
    for (wanted, (rank, line, token)) in tokens.iter().enumerate() {
        let fail = |rest: String| Err(format!("read tokenizer line {line}: {rest}"));
        if (*rank as usize) < wanted {
            return fail(format!(
                "wanted each rank once, found {rank} in line {} too",
                lines[wanted - 1]
            ));
        }
        if *rank as usize > wanted {
            return fail(format!("wanted rank {wanted} in some line, found none below {rank}"));
        }
        if let Err(known) = table.insert(token) {
            let other = lines[known as usize];
            return fail(format!(
                "wanted each token once, found {} in line {other} too",
                quote(token)
            ));
        }
        lines.push(*line);
    }
    let single = |byte: u8| {
        let mut padded = [0; 1 + PADDING];
        padded[0] = byte;
        table.find(&padded, 0, 1)
    };
    match (0..=255).find(|byte| single(*byte).is_none()) {
        Some(byte) => {
            Err(format!("read tokenizer: wanted all single bytes, found none for {byte:#04x}"))
        }
        None => Ok(table),
    }
}
