// Measures an adapter's integer products: chains s <- dot4I8Packed(s, factor) + addend, 16 a thread
// that do not wait for each other, of 8 products a turn each.
//
//   sums  u32 [groups][256] = sum of a thread's 16 chains, which begin at 16 thread + chain
//
// Arithmetic modulo 2^32; thread: of all workgroups. Loops: `turns` turns.

struct Params {
  turns: u32,
  factor: u32,
  addend: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  var chains = array<u32, 16>();
  // @unroll
  for (var i = 0u; i < 16u; i++) {
    chains[i] = 16u * id.x + i;
  }
  for (var turn = 0u; turn < params.turns; turn++) {
    // @unroll
    for (var product = 0u; product < 8u; product++) {
      // @unroll
      for (var i = 0u; i < 16u; i++) {
        chains[i] = bitcast<u32>(dot4I8Packed(chains[i], params.factor)) + params.addend;
      }
    }
  }
  var sum = 0u;
  // @unroll
  for (var i = 0u; i < 16u; i++) {
    sum += chains[i];
  }
  sums[id.x] = sum;
}
