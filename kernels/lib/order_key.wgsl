// An integer that orders as the floats do; NaN below everything, so that a damaged row still
// chooses experts that exist.
fn order_key(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let key = select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
  return select(key, 0u, is_nan(value));
}
