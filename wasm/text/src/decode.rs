//! Tokens to text, whole or as they come.

use crate::vocabulary::Vocabulary;

pub fn decode(vocabulary: &Vocabulary, ids: &[u32], skip_special: bool) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(ids.len() * 4);
    for &id in ids {
        vocabulary.check_id(id)?;
        if !(skip_special && vocabulary.is_skipped(id)) {
            vocabulary.append_bytes(id, &mut bytes);
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Moves all of `bytes` to text but a last sequence that more bytes could complete. What all calls
/// give together is what one decoding of all bytes gives.
pub fn take_complete(bytes: &mut Vec<u8>) -> String {
    let mut held = 0;
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                break;
            }
            Err(error) => {
                let (valid, invalid) = rest.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(valid).expect("checked"));
                let Some(length) = error.error_len() else {
                    held = invalid.len();
                    break;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &invalid[length..];
            }
        }
    }
    bytes.drain(..bytes.len() - held);
    text
}
