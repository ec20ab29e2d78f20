// The running softmax of the 64 rows of mla_prefill.wgsl, over parts that 16 lanes have each.

const LOWEST: f32 = -3.4028234e38;

// [lane][row]: parts of a row's maximum or sum.
var<workgroup> lane_parts: array<f32, 1024>;
// By row: the maximum, how much sums of before shrink, the sum.
var<workgroup> row_maxima: array<f32, 64>;
var<workgroup> row_corrections: array<f32, 64>;
var<workgroup> row_sums: array<f32, 64>;

// New maxima out of lane_parts, a row a thread.
fn join_maxima(row: u32) {
  let before = row_maxima[row];
  var largest = before;
  for (var l = 0u; l < 16u; l++) {
    largest = max(largest, lane_parts[l * 64u + row]);
  }
  row_maxima[row] = largest;
  row_corrections[row] = select(exp(before - largest), 1.0, before == largest);
}

fn join_sums(row: u32) {
  var sum = 0.0;
  for (var l = 0u; l < 16u; l++) {
    sum += lane_parts[l * 64u + row];
  }
  row_sums[row] = fma(row_sums[row], row_corrections[row], sum);
}
