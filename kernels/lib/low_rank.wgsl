// What a KDA layer's gates are made of, in the one order of operations that decode_kda_step.wgsl
// and decode_kda_gates.wgsl share: lane l of a row of weights adds segments l, l + LOW_LANES, ...
// of 16 columns each, and the lanes' sums are added in order. Before it comes lib/softplus.wgsl.

const LOW_LANES: u32 = 8u;
// Quads from one segment of f or g in workgroup memory to the next: one more than a segment has,
// so that eight neighbours who read a quad of eight segments each meet all banks.
const LOW_STRIDE: u32 = 5u;

// The quad that element i of f or g lies in.
fn low_quad(i: u32) -> u32 {
  return i / 16u * LOW_STRIDE + i % 16u / 4u;
}

// A segment of weights times one of f or g. No sum of a rounded product: nothing that compilers may
// contract or not.
fn low_product(w: mat4x4<f32>, x: mat4x4<f32>) -> f32 {
  let sums = fma(w[3], x[3], fma(w[2], x[2], fma(w[1], x[1], w[0] * x[0])));
  return (sums.x + sums.y) + (sums.z + sums.w);
}

// What a key channel keeps of its state; a: projection and bias.
fn retention(a_log: f32, a: f32) -> f32 {
  return exp(-exp(a_log) * softplus(a));
}
