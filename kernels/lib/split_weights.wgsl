// What each split of a head's context counts, after lib/decode_splits.wgsl. The kernel declares
// maxima, Params with head_count, and has at least SPLITS threads.

// [split]: exp(m - M); its share of the total; eight splits each, joined.
var<workgroup> factors: array<f32, SPLITS>;
var<workgroup> totals: array<vec4<f32>, SPLITS / 4u>;
var<workgroup> joined: array<f32, SPLITS / 8u>;

// Threads [0, SPLITS) leave the factors and shares of a head's splits, which begin at `first`;
// returns the sum of the shares.
fn weigh_splits(thread: u32, first: u32, used: u32) -> f32 {
  var own = LOWEST;
  var share = 0.0;
  if (thread < used) {
    let at = 2u * (first + thread * params.head_count);
    own = maxima[at];
    share = maxima[at + 1u];
  }
  if (thread < SPLITS) {
    totals[thread / 4u][thread % 4u] = own;
  }
  workgroupBarrier();
  if (thread < SPLITS / 8u) {
    let four = max(totals[2u * thread], totals[2u * thread + 1u]);
    joined[thread] = max(max(four.x, four.y), max(four.z, four.w));
  }
  workgroupBarrier();
  var maximum = LOWEST;
  // @unroll
  for (var i = 0u; i < SPLIT_EIGHTS; i++) {
    maximum = max(maximum, joined[i]);
  }
  if (thread < SPLITS) {
    let factor = select(0.0, exp(own - maximum), thread < used);
    factors[thread] = factor;
    totals[thread / 4u][thread % 4u] = factor * share;
  }
  workgroupBarrier();
  if (thread < SPLITS / 8u) {
    let four = totals[2u * thread] + totals[2u * thread + 1u];
    joined[thread] = (four.x + four.y) + (four.z + four.w);
  }
  workgroupBarrier();
  var total = 0.0;
  // @unroll
  for (var i = 0u; i < SPLIT_EIGHTS; i++) {
    total += joined[i];
  }
  return total;
}
