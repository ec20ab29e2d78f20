//! What `wasm/grammar.ts` calls: llguidance over Kedge's vocabulary.

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{Matcher as Parser, ParserFactory};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use wasm_bindgen::prelude::*;

/// Bounds on what one grammar may take: about 20 ms and 64 MiB to compile, 8 ms a token, and 60 ms
/// to look for text without a choice. Schemas of real programs take a tenth of the first.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 2_000,
    initial_lexer_fuel: 1_000_000,
    step_lexer_fuel: 100_000,
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

#[wasm_bindgen]
extern "C" {
    /// The model's own tokenizer.
    pub type Encoder;

    #[wasm_bindgen(method)]
    fn encode(this: &Encoder, text: &str) -> Vec<u32>;
}

/// What llguidance asks about tokens. Text that a grammar forces is cut as the tokenizer cuts it.
struct Tokens {
    trie: TokTrie,
    encoder: Encoder,
    /// Whether text without a choice is looked for. Not at a grammar's first mask: until then the
    /// lexer has the work of its compilation left, which may be a second's.
    is_forcing: AtomicBool,
}

// llguidance shares it between threads; a WebAssembly module without shared memory has one.
unsafe impl Send for Tokens {}
unsafe impl Sync for Tokens {}

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| self.encoder.encode(text))
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.is_forcing.load(Ordering::Relaxed)
    }
}

/// The tokens of a model, as a trie, and what all grammars over it share.
#[wasm_bindgen]
pub struct Vocabulary {
    factory: ParserFactory,
    tokens: Arc<Tokens>,
}

#[wasm_bindgen]
impl Vocabulary {
    /// `bytes`: those of all tokens, one after the other; `lengths`: of each. A token without bytes
    /// is never allowed, and one that begins with 0xff is no text.
    #[wasm_bindgen(constructor)]
    pub fn new(
        bytes: &[u8],
        lengths: &[u32],
        end: u32,
        encoder: Encoder,
    ) -> Result<Vocabulary, JsError> {
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
        let tokens = Arc::new(Tokens { trie, encoder, is_forcing: AtomicBool::new(true) });
        let environment: TokEnv = tokens.clone();
        let mut factory = ParserFactory::new_simple(&environment).map_err(error)?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        Ok(Vocabulary { factory, tokens })
    }
}

/// One text's way through a grammar.
#[wasm_bindgen]
pub struct Matcher {
    parser: Parser,
    /// Of the next token; empty until it is computed.
    mask: Vec<u32>,
    /// Whether a token was consumed.
    is_begun: bool,
}

#[wasm_bindgen]
impl Matcher {
    /// `kind`: "json_schema", "regex" or "lark".
    #[wasm_bindgen(constructor)]
    pub fn new(vocabulary: &Vocabulary, kind: &str, source: &str) -> Result<Matcher, JsError> {
        let grammar = TopLevelGrammar::from_tagged_str(kind, source).map_err(error)?;
        let parser = vocabulary.factory.create_parser(grammar).map_err(error)?;
        let mut parser = Parser::new(Ok(parser));
        let is_forcing = &vocabulary.tokens.is_forcing;
        is_forcing.store(false, Ordering::Relaxed);
        let mask = parser.compute_mask_or_eos();
        is_forcing.store(true, Ordering::Relaxed);
        let mask = mask.map_err(error)?.as_slice().to_vec();
        Ok(Matcher { parser, mask, is_begun: false })
    }

    /// Computes the next token's mask unless it is known. Bit i % 32 of word i / 32 tells whether
    /// token i may come.
    pub fn mask_address(&mut self) -> Result<*const u32, JsError> {
        if self.mask.is_empty() {
            self.mask = self.parser.compute_mask_or_eos().map_err(error)?.as_slice().to_vec();
        }
        Ok(self.mask.as_ptr())
    }

    /// The tokens that must come next, as far as what follows can't change how text is cut. None
    /// before the first token.
    pub fn forced(&mut self) -> Vec<u32> {
        if self.is_begun { self.parser.compute_ff_tokens() } else { Vec::new() }
    }

    pub fn consume(&mut self, id: u32) -> Result<(), JsError> {
        self.is_begun = true;
        self.mask.clear();
        self.parser.consume_token(id).map_err(error)
    }

    /// Whether nothing but the end can follow.
    pub fn is_over(&self) -> bool {
        self.parser.is_stopped()
    }
}
