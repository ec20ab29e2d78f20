//! A hash table from byte strings to numbers 0, 1, 2 ... in the order of insertion.

/// Readable bytes that must follow every string that is looked up.
pub const PADDING: usize = 16;

/// The first 16 bytes of a string of `length` bytes, zero where it is shorter, as two words.
///
/// `bytes` must hold `PADDING` bytes from `start`, whatever `length` is.
#[inline(always)]
pub fn head(bytes: &[u8], start: usize, length: usize) -> (u64, u64) {
    let window: &[u8; PADDING] = bytes[start..start + PADDING].try_into().expect("16 bytes");
    let low = u64::from_le_bytes(window[..8].try_into().expect("8 bytes"));
    let high = u64::from_le_bytes(window[8..].try_into().expect("8 bytes"));
    match length {
        0 => (0, 0),
        1..=8 => (low & u64::MAX >> (64 - 8 * length), 0),
        9..16 => (low, high & u64::MAX >> (128 - 8 * length)),
        _ => (low, high),
    }
}

/// Mixes two words into one; the upper bits are the best.
#[inline(always)]
pub fn mix(low: u64, high: u64) -> u64 {
    let product = (low ^ high.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product ^ product >> 32 ^ high).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

fn hash(bytes: &[u8], start: usize, length: usize) -> u64 {
    let mut at = 0;
    let mut state = length as u64;
    while length - at > 16 {
        let (low, high) = head(bytes, start + at, 16);
        state = mix(low ^ state, high ^ state.rotate_left(32));
        at += 16;
    }
    let (low, high) = head(bytes, start + at, length - at);
    mix(low ^ state, high ^ state.rotate_left(32))
}

/// `tag` is the hash's upper half, `number` u32::MAX in an empty slot.
#[derive(Clone, Copy)]
struct Slot {
    tag: u32,
    number: u32,
}

pub struct ByteTable {
    /// All strings one after the other, and PADDING bytes.
    bytes: Vec<u8>,
    /// starts[i]..starts[i + 1] is string i.
    starts: Vec<u32>,
    slots: Vec<Slot>,
    /// lengths[n]: a string of n bytes exists.
    lengths: Vec<bool>,
}

const EMPTY: Slot = Slot { tag: 0, number: u32::MAX };

impl ByteTable {
    /// A table for at most `capacity` strings.
    pub fn new(capacity: usize) -> ByteTable {
        let slots = vec![EMPTY; (capacity * 2).next_power_of_two().max(2)];
        ByteTable { bytes: vec![0; PADDING], starts: vec![0], slots, lengths: vec![false] }
    }

    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    pub fn longest(&self) -> usize {
        self.lengths.len() - 1
    }

    pub fn has_length(&self, length: usize) -> bool {
        self.lengths.get(length).copied().unwrap_or(false)
    }

    pub fn get(&self, number: usize) -> Option<&[u8]> {
        let end = *self.starts.get(number + 1)?;
        Some(&self.bytes[self.starts[number] as usize..end as usize])
    }

    /// Adds a string and returns its number; the error is the number of a string equal to it.
    pub fn insert(&mut self, string: &[u8]) -> Result<u32, u32> {
        let number = self.len() as u32;
        let start = self.bytes.len() - PADDING;
        self.bytes.truncate(start);
        self.bytes.extend_from_slice(string);
        self.bytes.extend_from_slice(&[0; PADDING]);
        let hash = hash(&self.bytes, start, string.len());
        let at = match self.probe(&self.bytes, start, string.len(), hash) {
            Ok(known) => {
                self.bytes.truncate(start + PADDING);
                self.bytes[start..].fill(0);
                return Err(known);
            }
            Err(at) => at,
        };
        self.slots[at] = Slot { tag: (hash >> 32) as u32, number };
        self.starts.push((start + string.len()) as u32);
        if self.lengths.len() <= string.len() {
            self.lengths.resize(string.len() + 1, false);
        }
        self.lengths[string.len()] = true;
        Ok(number)
    }

    /// Number of the string `text[start..start + length]`. `text` must reach PADDING bytes further.
    #[inline]
    pub fn find(&self, text: &[u8], start: usize, length: usize) -> Option<u32> {
        if !self.has_length(length) {
            return None;
        }
        self.probe(text, start, length, hash(text, start, length)).ok()
    }

    /// The string's number, or the slot where it belongs.
    #[inline(always)]
    fn probe(&self, text: &[u8], start: usize, length: usize, hash: u64) -> Result<u32, usize> {
        let (mask, tag) = (self.slots.len() - 1, (hash >> 32) as u32);
        let mut at = tag as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.number == u32::MAX {
                return Err(at);
            }
            if slot.tag == tag && self.is_equal(slot.number, text, start, length) {
                return Ok(slot.number);
            }
            at = (at + 1) & mask;
        }
    }

    #[inline(always)]
    fn is_equal(&self, number: u32, text: &[u8], start: usize, length: usize) -> bool {
        let own = self.starts[number as usize] as usize;
        if self.starts[number as usize + 1] as usize - own != length {
            return false;
        }
        if length <= PADDING {
            return head(&self.bytes, own, length) == head(text, start, length);
        }
        self.bytes[own..own + length] == text[start..start + length]
    }
}
