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

// (scale, 1 / scale) of a group whose largest magnitude has these bits, both rounded to nearest
// whatever the adapter's division gives.
fn group_scale(bits: u32) -> vec2<f32> {
  if (bits >= 0x7f800000u) {
    return vec2(bitcast<f32>(bits | 0x400000u), 0.0);
  }
  if (bits < 0x0d800000u) {
    return vec2(0.0);
  }
  let largest = bitcast<f32>(bits);
  let quotient = largest * 0.007874015748031496;
  let scale = fma(fma(-quotient, 127.0, largest), 0.007874015748031496, quotient);
  let inverse = 1.0 / scale;
  return vec2(scale, fma(fma(-inverse, scale, 1.0), inverse, inverse));
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
