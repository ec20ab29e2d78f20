// Sums of floats that do not depend on their order: each is cut into three integers of 20 bits,
// units 2^12, 2^-8 and 2^-28, which are added by themselves (2,048 of them without overflow).
// Finite values below 2^32; what lies below 2^-28 is dropped.

fn limbs_of(value: f32) -> vec3<i32> {
  let high = trunc(value * 0x1p-12);
  let rest = value - high * 0x1p12;
  let middle = trunc(rest * 0x1p8);
  let low = trunc((rest - middle * 0x1p-8) * 0x1p28);
  return vec3<i32>(vec3(high, middle, low));
}

fn value_of(limbs: vec3<i32>) -> f32 {
  let parts = vec3<f32>(limbs) * vec3(0x1p12, 0x1p-8, 0x1p-28);
  return parts.x + (parts.y + parts.z);
}
