// Rounds activations to int8 in groups of 32 columns: 4 threads a group, 8 columns a thread.
//   scale = largest magnitude / 127;  q = round(x / scale), ties to even
//
// The kernel has 128 threads and declares
//   words       vec2<u32> [rows][8 steps]: per 8 columns the even ones' bytes, then the odd ones'
//   row_scales  f32 [rows][2 steps]
// A step is 64 columns; columns of the padding are 0, whole groups of it have scale 0. A group
// that holds NaN or infinity has scale NaN, so that whatever it is multiplied with shows it.
// Groups whose largest magnitude is below 2^-100 count as 0.

const QUANTIZE_THREADS: u32 = 128u;

var<workgroup> largest_bits: array<u32, 128>;

// The bits of a normal x / 127 rounded to nearest, in integers: division and fma differ between
// adapters. With x = m 2^e, m of 24 bits, 256 m / 127 has 25 or 26.
fn divided_by_127(bits: u32) -> u32 {
  let scaled = ((bits & 0x7fffffu) | 0x800000u) << 8u;
  let quotient = scaled / 127u;
  let shift = select(1u, 2u, quotient >= 0x2000000u);
  let dropped = quotient & ((1u << shift) - 1u);
  let half = shift;
  let kept = quotient >> shift;
  let beyond = scaled % 127u != 0u || (kept & 1u) == 1u;
  let up = u32(dropped > half || (dropped == half && beyond));
  return (((bits >> 23u) + shift - 8u) << 23u) + (kept - 0x800000u) + up;
}

// The bits of 1 / x rounded to nearest, x normal, from the adapter's division: with x = k 2^e, k of
// 24 bits, the result is n = 2^47 / k in units of a power of 2; the low 32 bits of 2^47 - k n tell
// how far off n is.
fn inverse_bits(bits: u32) -> u32 {
  let near = bitcast<u32>(1.0 / bitcast<f32>(bits));
  let k = (bits & 0x7fffffu) | 0x800000u;
  if (k == 0x800000u) {
    return near;
  }
  let base = ((253u - (bits >> 23u)) << 23u) - 0x800000u;
  let n = near - base;
  let twice = 2 * bitcast<i32>(0u - k * n) + i32(k);
  let steps = select(twice / (2 * i32(k)), -((2 * i32(k) - 1 - twice) / (2 * i32(k))), twice < 0);
  return base + bitcast<u32>(bitcast<i32>(n) + steps);
}

// (scale, 1 / scale) of a group whose largest magnitude has these bits.
fn group_scale(bits: u32) -> vec2<f32> {
  if (bits >= 0x7f800000u) {
    return vec2(bitcast<f32>(bits | 0x400000u), 0.0);
  }
  if (bits < 0x0d800000u) {
    return vec2(0.0);
  }
  let scale = divided_by_127(bits);
  return vec2(bitcast<f32>(scale), bitcast<f32>(inverse_bits(scale)));
}

// Four int8 multiples of the scale in one word; zeros where the scale is NaN.
fn packed_int8(values: vec4<f32>, inverse: f32) -> u32 {
  let q = select(vec4(0), vec4<i32>(round(values * inverse)), vec4(inverse > 0.0));
  let bytes = bitcast<vec4<u32>>(q) & vec4(0xffu);
  return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

// Columns [8 unit, 8 unit + 8) of rows laid end to end, each padded to whole steps. Called by all
// threads in uniform control flow; four neighbours share a group.
fn quantize_unit(thread: u32, unit: u32, used: bool, even: vec4<f32>, odd: vec4<f32>) {
  let bits = max(bitcast<vec4<u32>>(even) & vec4(0x7fffffffu),
    bitcast<vec4<u32>>(odd) & vec4(0x7fffffffu));
  workgroupBarrier();
  largest_bits[thread] = max(max(bits.x, bits.y), max(bits.z, bits.w));
  workgroupBarrier();
  let first = thread / 4u * 4u;
  let scale = group_scale(max(
    max(largest_bits[first], largest_bits[first + 1u]),
    max(largest_bits[first + 2u], largest_bits[first + 3u])));
  if (used) {
    words[unit] = vec2(packed_int8(even, scale.y), packed_int8(odd, scale.y));
    if (thread % 4u == 0u) {
      row_scales[unit / 4u] = scale.x;
    }
  }
}
