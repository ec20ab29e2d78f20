// The dot product of a group. The sum starts at the bits of 1.5 x 2^23, so that its own bits are
// those of a float that is larger by this: exact, as |dot| < 2^22.
fn group_dot(x0: vec4<u32>, x1: vec4<u32>, w0: vec4<u32>, w1: vec4<u32>) -> f32 {
  let sum = 0x4b400000i
    + dot4I8Packed(x0.x, w0.x) + dot4I8Packed(x0.y, w0.y)
    + dot4I8Packed(x0.z, w0.z) + dot4I8Packed(x0.w, w0.w)
    + dot4I8Packed(x1.x, w1.x) + dot4I8Packed(x1.y, w1.y)
    + dot4I8Packed(x1.z, w1.z) + dot4I8Packed(x1.w, w1.w);
  return bitcast<f32>(sum) - 12582912.0;
}
