// What a part of a row of logits gives to the sums over the row, and to the choice of the best.
//
//   logits  f32 [row_count][width]
//   wanted  [row_count] of temperature, target: f32, u32
//   shares  [row_count][ceil(width / 2,048)] of the part's largest logit, the sums of
//           exp(l - largest) and of exp((l - largest) / temperature): f32; 1 if any of the part is
//           NaN or infinite, else 0: u32
//   maxima  u32 [row_count][parts][32]: the largest key of subset s of a part's items, those with
//           item % 256 / 8 = s; 0 for one without items
//
// One workgroup: one part, always summed in the same order. Loops: 2 x 8 + 16 turns.

struct Params {
  row_count: u32,
  width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> wanted: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> shares: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> maxima: array<u32>;

const THREADS: u32 = 256u;
const PART: u32 = 2048u;
const SUBSETS: u32 = 32u;
// exp of less is nothing beside the 1 of the largest.
const LEAST_EXPONENT: f32 = -100.0;

var<workgroup> largest: array<f32, 256>;
var<workgroup> flags: array<u32, 256>;
var<workgroup> keys: array<u32, 256>;
var<workgroup> sums: array<vec2<f32>, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.y;
  let start = row * params.width;
  let end = min(params.width, (group.x + 1u) * PART);
  var own = -3.4e38;
  var flag = 0u;
  var key = 0u;
  for (var c = group.x * PART + thread; c < end; c += THREADS) {
    let logit = logits[start + c];
    flag |= select(1u, 0u, is_finite(logit));
    own = max(own, logit);
    key = max(key, key_of(bitcast<u32>(logit)));
  }
  largest[thread] = own;
  flags[thread] = flag;
  keys[thread] = key;
  workgroupBarrier();
  if (thread < SUBSETS) {
    key = 0u;
    // @unroll
    for (var i = 0u; i < 8u; i++) {
      key = max(key, keys[8u * thread + i]);
    }
    maxima[(row * groups.x + group.x) * SUBSETS + thread] = key;
  }
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if (thread < half) {
      largest[thread] = max(largest[thread], largest[thread + half]);
      flags[thread] |= flags[thread + half];
    }
    workgroupBarrier();
  }
  let best = largest[0];
  let temperature = bitcast<f32>(wanted[row].x);
  let scale = select(0.0, 1.0 / temperature, temperature > 0.0);
  var sum = vec2<f32>(0.0);
  for (var c = group.x * PART + thread; c < end; c += THREADS) {
    let below = logits[start + c] - best;
    sum += exp(max(vec2<f32>(below, below * scale), vec2<f32>(LEAST_EXPONENT)));
  }
  sums[thread] = sum;
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if (thread < half) {
      sums[thread] += sums[thread + half];
    }
    workgroupBarrier();
  }
  if (thread == 0u) {
    shares[row * groups.x + group.x] =
      vec4<u32>(bitcast<u32>(best), bitcast<vec2<u32>>(sums[0]), flags[0]);
  }
}
