// What turns a row of logits into probabilities, and whether it can be trusted.
//
//   logits  f32 [row_count][width]
//   wanted  [row_count] of temperature, target: f32, u32 (0xffffffff: none)
//   sums    [row_count] of ln sum exp(l), ln sum exp(l / temperature) (0 for temperature 0), the
//           target's logit (0 without one): f32; 1 if any of the row is NaN or infinite, else 0: u32
//
// One workgroup: one row, always summed in the same order. Loops: 2 width / 256 + 24 turns.

struct Params {
  row_count: u32,
  width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> wanted: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<u32>>;

const THREADS: u32 = 256u;
// exp of less is nothing beside the 1 of the largest.
const LEAST_EXPONENT: f32 = -100.0;

var<workgroup> largest: array<f32, 256>;
var<workgroup> flags: array<u32, 256>;
var<workgroup> shares: array<vec2<f32>, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.y * groups.x + group.x;
  if (row >= params.row_count) {
    return;
  }
  let start = row * params.width;
  var own = -3.4e38;
  var flag = 0u;
  for (var c = thread; c < params.width; c += THREADS) {
    let logit = logits[start + c];
    flag |= select(1u, 0u, is_finite(logit));
    own = max(own, logit);
  }
  largest[thread] = own;
  flags[thread] = flag;
  workgroupBarrier();
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
  for (var c = thread; c < params.width; c += THREADS) {
    let below = logits[start + c] - best;
    sum += exp(max(vec2<f32>(below, below * scale), vec2<f32>(LEAST_EXPONENT)));
  }
  shares[thread] = sum;
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if (thread < half) {
      shares[thread] += shares[thread + half];
    }
    workgroupBarrier();
  }
  if (thread == 0u) {
    let target_id = wanted[row].y;
    let has_target = target_id < params.width;
    let found = logits[start + select(0u, target_id, has_target)];
    let scaled = select(0.0, best * scale + log(shares[0].y), temperature > 0.0);
    sums[row] = vec4<u32>(
      bitcast<u32>(best + log(shares[0].x)),
      bitcast<u32>(scaled),
      bitcast<u32>(select(0.0, found, has_target)),
      flags[0],
    );
  }
}
