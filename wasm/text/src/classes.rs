//! The character classes that the split rule tells apart, one number a character.

use std::ops::BitOr;

/// Punctuation, symbols, controls, unassigned.
pub const OTHER: u8 = 0;
/// White_Space without CR and LF.
pub const SPACE: u8 = 1;
/// CR or LF.
pub const NEWLINE: u8 = 2;
/// Lu and Lt; from here on the first five are without Han.
pub const UPPER: u8 = 3;
/// Ll.
pub const LOWER: u8 = 4;
/// Lm and Lo: upper and lower at once.
pub const CASELESS: u8 = 5;
/// M: upper and lower at once, and no letter.
pub const MARK: u8 = 6;
/// N.
pub const NUMBER: u8 = 7;
/// Han that is L.
pub const HAN_LETTER: u8 = 8;
/// Han that is N.
pub const HAN_NUMBER: u8 = 9;
/// Han that is neither, e.g. radicals.
pub const HAN_OTHER: u8 = 10;
/// Past the end of the text.
pub const END: u8 = 11;

/// A set of classes.
#[derive(Clone, Copy)]
pub struct Set(u16);

impl Set {
    pub const fn of(classes: &[u8]) -> Set {
        let (mut bits, mut i) = (0, 0);
        while i < classes.len() {
            bits |= 1 << classes[i];
            i += 1;
        }
        Set(bits)
    }

    #[inline(always)]
    pub fn has(self, class: u8) -> bool {
        self.0 >> class & 1 != 0
    }
}

impl BitOr for Set {
    type Output = Set;
    fn bitor(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }
}

const BLOCK_BITS: u32 = 7;
static INDEX: &[u8; 0x11_0000 >> BLOCK_BITS] =
    include_bytes!(concat!(env!("OUT_DIR"), "/class_index.bin"));
static BLOCKS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/class_blocks.bin"));
static ASCII: [u8; 128] = ascii();

const fn ascii() -> [u8; 128] {
    let mut classes = [OTHER; 128];
    let mut i = 0;
    while i < 128 {
        classes[i] = match i as u8 {
            b'\r' | b'\n' => NEWLINE,
            b'\t' | 0x0b | 0x0c | b' ' => SPACE,
            b'A'..=b'Z' => UPPER,
            b'a'..=b'z' => LOWER,
            b'0'..=b'9' => NUMBER,
            _ => OTHER,
        };
        i += 1;
    }
    classes
}

/// Class and byte length of the character at `at`; `(END, 0)` at `text`'s end.
#[inline(always)]
pub fn class_at(text: &[u8], at: usize) -> (u8, usize) {
    match text.get(at) {
        None => (END, 0),
        Some(&byte) if byte < 0x80 => (ASCII[byte as usize], 1),
        Some(_) => {
            let (character, length) = decode(text, at);
            let block = INDEX[(character >> BLOCK_BITS) as usize] as usize;
            (BLOCKS[block << BLOCK_BITS | (character & 0x7f) as usize], length)
        }
    }
}

/// The character at `at` of valid UTF-8, and its length in bytes.
pub fn decode(text: &[u8], at: usize) -> (u32, usize) {
    let tail = |i: usize| (text[at + i] & 0x3f) as u32;
    match text[at] as u32 {
        byte @ 0..0x80 => (byte, 1),
        byte @ 0x80..0xe0 => ((byte & 0x1f) << 6 | tail(1), 2),
        byte @ 0xe0..0xf0 => ((byte & 0xf) << 12 | tail(1) << 6 | tail(2), 3),
        byte => ((byte & 7) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4),
    }
}
