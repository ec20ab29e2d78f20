//! What `wasm/grammar.ts` calls: llguidance over Kedge's vocabulary.

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{Matcher as Parser, ParserFactory};
use std::sync::Arc;
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use wasm_bindgen::prelude::*;

/// Bounds on what one grammar may take: about 20 ms and 64 MiB to compile, 15 ms a token. Schemas
/// of real programs take a tenth of the first.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 2_000,
    initial_lexer_fuel: 1_000_000,
    step_lexer_fuel: 200_000,
    step_max_items: 50_000,
    max_lexer_states: 30_000,
    max_grammar_size: 200_000,
    precompute_large_lexemes: true,
    // Errors reach clients and logs: they must not quote what was generated.
    verbose_errors: false,
};

fn error(error: impl std::fmt::Display) -> JsError {
    JsError::new(&error.to_string())
}

/// The tokens of a model, as a trie, and what all grammars over it share.
#[wasm_bindgen]
pub struct Vocabulary(ParserFactory);

#[wasm_bindgen]
impl Vocabulary {
    /// `bytes`: those of all tokens, one after the other; `lengths`: of each. A token without bytes
    /// is never allowed, and one that begins with 0xff is no text.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: &[u8], lengths: &[u32], end: u32) -> Result<Vocabulary, JsError> {
        let mut rest = bytes;
        let words: Vec<Vec<u8>> = lengths
            .iter()
            .map(|&length| {
                let (word, after) = rest.split_at(length as usize);
                rest = after;
                word.to_vec()
            })
            .collect();
        let info = TokRxInfo::new(words.len() as u32, end);
        let trie = TokTrie::from(&info, &words);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(error)?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        Ok(Vocabulary(factory))
    }
}

/// One text's way through a grammar.
#[wasm_bindgen]
pub struct Matcher {
    parser: Parser,
    /// Of the next token; empty until it is computed.
    mask: Vec<u32>,
}

#[wasm_bindgen]
impl Matcher {
    /// `kind`: "json_schema", "regex" or "lark".
    #[wasm_bindgen(constructor)]
    pub fn new(vocabulary: &Vocabulary, kind: &str, source: &str) -> Result<Matcher, JsError> {
        let grammar = TopLevelGrammar::from_tagged_str(kind, source).map_err(error)?;
        let parser = vocabulary.0.create_parser(grammar).map_err(error)?;
        Ok(Matcher { parser: Parser::new(Ok(parser)), mask: Vec::new() })
    }

    /// Computes the next token's mask unless it is known. Bit i % 32 of word i / 32 tells whether
    /// token i may come.
    pub fn mask_address(&mut self) -> Result<*const u32, JsError> {
        if self.mask.is_empty() {
            self.mask = self.parser.compute_mask_or_eos().map_err(error)?.as_slice().to_vec();
        }
        Ok(self.mask.as_ptr())
    }

    pub fn consume(&mut self, id: u32) -> Result<(), JsError> {
        self.mask.clear();
        self.parser.consume_token(id).map_err(error)
    }

    /// Whether nothing but the end can follow.
    pub fn is_over(&self) -> bool {
        self.parser.is_stopped()
    }
}
