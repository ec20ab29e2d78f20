// An integer that orders as a logit does: the bits of a float, turned so that larger floats are
// larger integers; -0 is 0.
fn key_of(word: u32) -> u32 {
  let bits = select(word, 0u, word == 0x80000000u);
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}
