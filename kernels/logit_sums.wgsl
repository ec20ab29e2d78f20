// What turns a row of logits into probabilities, and whether it can be trusted.
//
//   shares  [row_count][part_count], see logit_parts.wgsl
//   logits  f32 [row_count][width], for the target alone
//   wanted  [row_count] of temperature, target: f32, u32 (width or more: none)
//   sums    [row_count] of ln sum exp(l), ln sum exp(l / temperature) (0 for temperature 0), the
//           target's logit (0 without one): f32; 1 if any of the row is NaN or infinite, else 0
//
// One workgroup: one row, always summed in the same order. Loops: 2 part_count / 64 + 12 turns.

struct Params {
  row_count: u32,
  width: u32,
  part_count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> shares: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read> wanted: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<u32>>;

const THREADS: u32 = 64u;

var<workgroup> largest: array<f32, 64>;
var<workgroup> flags: array<u32, 64>;
var<workgroup> totals: array<vec2<f32>, 64>;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.y * groups.x + group.x;
  if (row >= params.row_count) {
    return;
  }
  let start = row * params.part_count;
  var own = -3.4e38;
  var flag = 0u;
  for (var part = thread; part < params.part_count; part += THREADS) {
    own = max(own, bitcast<f32>(shares[start + part].x));
    flag |= shares[start + part].w;
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
  var total = vec2<f32>(0.0);
  for (var part = thread; part < params.part_count; part += THREADS) {
    let share = shares[start + part];
    let below = bitcast<f32>(share.x) - best;
    total += bitcast<vec2<f32>>(share.yz) * exp(vec2<f32>(below, below * scale));
  }
  totals[thread] = total;
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if (thread < half) {
      totals[thread] += totals[thread + half];
    }
    workgroupBarrier();
  }
  if (thread == 0u) {
    let target_id = wanted[row].y;
    let has_target = target_id < params.width;
    let found = logits[row * params.width + select(0u, target_id, has_target)];
    let scaled = select(0.0, best * scale + log(totals[0].y), temperature > 0.0);
    sums[row] = vec4<u32>(
      bitcast<u32>(best + log(totals[0].x)),
      bitcast<u32>(scaled),
      bitcast<u32>(select(0.0, found, has_target)),
      flags[0],
    );
  }
}
