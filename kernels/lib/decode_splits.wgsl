// How the context of a row in decoding is split: its length alone decides, so that a row's result
// does not depend on its neighbours.

const SPLITS: u32 = 128u;
const SPLIT_EIGHTS: u32 = 16u;
const SPLIT_TOKENS_MIN: u32 = 32u;
// Below every score.
const LOWEST: f32 = -3.4e38;

// Positions of one split of a row at `position`; the last split may have fewer.
fn split_tokens(position: u32) -> u32 {
  let pieces = position / SPLIT_TOKENS_MIN + 1u;
  return SPLIT_TOKENS_MIN * ((pieces + SPLITS - 1u) / SPLITS);
}

fn split_count(position: u32) -> u32 {
  return position / split_tokens(position) + 1u;
}
