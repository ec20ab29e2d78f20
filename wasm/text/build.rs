//! Writes the character class tables of `src/classes.rs`, from the Unicode tables of the library
//! behind Rust's regular expressions.

use regex_syntax::Parser;
use regex_syntax::hir::{Class, HirKind};
use std::{env, fs, path::Path};

const BLOCK: usize = 128;

/// Class numbers as in `src/classes.rs`, with the characters of each; later lines win.
const CLASSES: [(u8, &str); 10] = [
    (1, r"\p{White_Space}"),
    (2, r"[\r\n]"),
    (3, r"[\p{Lu}\p{Lt}]"),
    (4, r"\p{Ll}"),
    (5, r"[\p{Lm}\p{Lo}]"),
    (6, r"\p{M}"),
    (7, r"\p{N}"),
    (8, r"[\p{Han}&&\p{L}]"),
    (9, r"[\p{Han}&&\p{N}]"),
    (10, r"[\p{Han}&&[^\p{L}\p{N}]]"),
];

fn ranges(pattern: &str) -> Vec<(usize, usize)> {
    let parsed = Parser::new().parse(pattern).expect("class pattern");
    let HirKind::Class(Class::Unicode(class)) = parsed.kind() else {
        panic!("{pattern} is not a class");
    };
    class.iter().map(|range| (range.start() as usize, range.end() as usize)).collect()
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut classes = vec![0u8; 0x11_0000];
    for (number, pattern) in CLASSES {
        for (start, end) in ranges(pattern) {
            classes[start..=end].fill(number);
        }
    }
    let mut blocks: Vec<&[u8]> = Vec::new();
    let mut index = Vec::new();
    for block in classes.chunks(BLOCK) {
        let at = blocks.iter().position(|known| *known == block).unwrap_or_else(|| {
            blocks.push(block);
            blocks.len() - 1
        });
        index.push(u8::try_from(at).expect("at most 256 distinct blocks"));
    }
    let folder = env::var("OUT_DIR").expect("OUT_DIR");
    fs::write(Path::new(&folder).join("class_index.bin"), index).expect("write class index");
    fs::write(Path::new(&folder).join("class_blocks.bin"), blocks.concat()).expect("write classes");
}
