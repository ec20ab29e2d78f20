//! Kimi's split rule: where one piece ends and the next begins, in one pass without backtracking.
//!
//! The rule is a regular expression of eight alternatives, the first that matches wins:
//!
//! ```text
//! 1  [\p{Han}]+
//! 2  [^\r\n\p{L}\p{N}]?UP*LO+CONTRACTION?
//! 3  [^\r\n\p{L}\p{N}]?UP+LO*CONTRACTION?
//! 4  \p{N}{1,3}
//! 5   ?[^\s\p{L}\p{N}]+[\r\n]*
//! 6  \s*[\r\n]+
//! 7  \s+(?!\S)
//! 8  \s+
//! ```
//!
//! UP is `\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}`, LO the same with `\p{Ll}` for the first two, both without
//! Han; CONTRACTION is `(?i:'s|'t|'re|'ve|'m|'ll|'d)`.

use crate::classes::*;

const HAN: Set = Set::of(&[HAN_LETTER, HAN_NUMBER, HAN_OTHER]);
const NUMBERS: Set = Set::of(&[NUMBER, HAN_NUMBER]);
const UP: Set = Set::of(&[UPPER, CASELESS, MARK]);
const LO: Set = Set::of(&[LOWER, CASELESS, MARK]);
const BLANK: Set = Set::of(&[SPACE, NEWLINE]);
/// `[^\s\p{L}\p{N}]`
const SYMBOL: Set = Set::of(&[OTHER, MARK, HAN_OTHER]);
/// `[^\r\n\p{L}\p{N}]`
const PREFIX: Set = Set::of(&[OTHER, SPACE, MARK, HAN_OTHER]);

/// End of the piece that starts at `start`, which is below `text.len()`; `text` is valid UTF-8.
#[inline]
pub fn piece_end(text: &[u8], start: usize) -> usize {
    let (first, length) = class_at(text, start);
    let after = start + length;
    if HAN.has(first) {
        return run_end(text, after, HAN);
    }
    let word = match first {
        UPPER | LOWER | CASELESS => word_end(text, start).either(),
        MARK => Some(marked_word_end(text, after)),
        _ if PREFIX.has(first) => word_end(text, after).either(),
        _ => None,
    };
    if let Some(end) = word {
        return contraction_end(text, end);
    }
    if NUMBERS.has(first) {
        return number_end(text, after);
    }
    let symbols = if text[start] == b' ' { after } else { start };
    let end = run_end(text, symbols, SYMBOL);
    if end > symbols {
        return run_end(text, end, Set::of(&[NEWLINE]));
    }
    blank_end(text, start)
}

/// Where rule 2 (`Lower`) or else rule 3 (`Upper`) ends.
enum Word {
    None,
    Lower(usize),
    Upper(usize),
}

impl Word {
    #[inline(always)]
    fn either(self) -> Option<usize> {
        match self {
            Word::None => None,
            Word::Lower(end) | Word::Upper(end) => Some(end),
        }
    }
}

/// A mark may be the character before a word or its own first letter. Rule 2 is tried in both ways
/// before rule 3: where it fails behind the mark, the mark alone satisfies UP*LO+.
fn marked_word_end(text: &[u8], after: usize) -> usize {
    match word_end(text, after) {
        Word::Lower(end) => end,
        Word::Upper(_) | Word::None => after,
    }
}

/// UP*LO+, else UP+LO*, from `start`. Where no lower letter follows the upper run, LO+ takes the
/// run's last character that is in both sets, and the word ends behind it.
#[inline(always)]
fn word_end(text: &[u8], start: usize) -> Word {
    let mut at = start;
    let mut last_both = start;
    loop {
        let (class, length) = class_at(text, at);
        if class == LOWER {
            return Word::Lower(run_end(text, at + length, LO));
        }
        if !UP.has(class) {
            break;
        }
        at += length;
        if class != UPPER {
            last_both = at;
        }
    }
    if last_both > start {
        Word::Lower(last_both)
    } else if at > start {
        Word::Upper(at)
    } else {
        Word::None
    }
}

#[inline(always)]
fn run_end(text: &[u8], mut at: usize, set: Set) -> usize {
    loop {
        let (class, length) = class_at(text, at);
        if !set.has(class) {
            return at;
        }
        at += length;
    }
}

fn number_end(text: &[u8], mut at: usize) -> usize {
    for _ in 1..3 {
        let (class, length) = class_at(text, at);
        if !NUMBERS.has(class) {
            break;
        }
        at += length;
    }
    at
}

/// Simple case folding makes U+017F, the long s, an s; no other character folds to these letters.
#[inline(always)]
fn contraction_end(text: &[u8], at: usize) -> usize {
    if text.get(at) != Some(&b'\'') {
        return at;
    }
    let letter = |i: usize| text.get(at + i).copied().unwrap_or(0);
    let length = match (letter(1) | 0x20, letter(2) | 0x20) {
        (b's' | b't' | b'm' | b'd', _) => 2,
        (b'r' | b'v', b'e') | (b'l', b'l') => 3,
        _ if (letter(1), letter(2)) == (0xc5, 0xbf) => 3,
        _ => 0,
    };
    at + length
}

/// Rules 6 to 8 on the run of white space at `start`: to its last line break if it has one; else
/// all
/// of it at the text's end; else all but its last character, which goes with what follows.
fn blank_end(text: &[u8], start: usize) -> usize {
    let (mut at, mut last, mut behind_newline) = (start, start, start);
    loop {
        let (class, length) = class_at(text, at);
        if !BLANK.has(class) {
            break;
        }
        last = at;
        at += length;
        if class == NEWLINE {
            behind_newline = at;
        }
    }
    if behind_newline > start {
        behind_newline
    } else if at == text.len() || last == start {
        at
    } else {
        last
    }
}
