// Measures an adapter's f32 arithmetic: chains s <- fma(s, factor, addend), 16 a thread that do not
// wait for each other, of 8 steps a turn each.
//
//   sums  f32 [groups][256] = sum of a thread's 16 chains, which begin at 0 .. 15
//
// Loops: `turns` turns.

struct Params {
  turns: u32,
  factor: f32,
  addend: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  var chains = array<f32, 16>();
  // @unroll
  for (var i = 0u; i < 16u; i++) {
    chains[i] = f32(i);
  }
  for (var turn = 0u; turn < params.turns; turn++) {
    // @unroll
    for (var product = 0u; product < 8u; product++) {
      // @unroll
      for (var i = 0u; i < 16u; i++) {
        chains[i] = fma(chains[i], params.factor, params.addend);
      }
    }
  }
  var sum = 0.0;
  // @unroll
  for (var i = 0u; i < 16u; i++) {
    sum += chains[i];
  }
  sums[id.x] = sum;
}
