// Sums over the four threads of a column and products with the low ranks, for decode_kda_step.wgsl.

const KEY_PART: u32 = 32u;
const KEY_DIM: u32 = 4u * KEY_PART;
// Segments of 16 columns in a row of W_fb and of W_gb, and of the latter in a quarter.
const RANK_SEGMENTS: u32 = 1u;
const GATE_SEGMENTS: u32 = 1u;
const GATE_PART: u32 = 1u;

// f, then g.
var<workgroup> low: array<vec4<f32>, 4u * (RANK_SEGMENTS + GATE_SEGMENTS)>;
var<workgroup> parts: array<vec4<f32>, 128>;

// The sums over the four parts of the thread's column.
fn column_sums(thread: u32, values: vec4<f32>) -> vec4<f32> {
  workgroupBarrier();
  parts[thread] = values;
  workgroupBarrier();
  let column = thread % 32u;
  return (parts[column] + parts[32u + column]) + (parts[64u + column] + parts[96u + column]);
}

// Segment `segment` of the float weights times segment `x` of `low`.
fn segment_product(segment: u32, x: u32) -> f32 {
  let w = weights16(segment);
  return (dot(w[0], low[4u * x]) + dot(w[1], low[4u * x + 1u])) +
    (dot(w[2], low[4u * x + 2u]) + dot(w[3], low[4u * x + 3u]));
}
