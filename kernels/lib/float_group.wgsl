// Groups of 32 f32 activations, as the fp8 kernels read them: nine quads a group,
//   0 to 7  the activations
//   8       1 (f32, where int8 groups have a scale), 0, sum of the squares that came along (f32), 0
//
// The kernel declares groups_out: array<vec4<u32>> (read_write). Its first GROUP_THREADS threads
// have values.

const GROUP_THREADS: u32 = 32u;

// [thread] (y, square).
var<workgroup> group_values: array<vec2<f32>, GROUP_THREADS>;

// Threads 32 s + i hold column i of set s: y and a share of the squares. Writes the set's group at
// `place` where `used`. All threads call it, in uniform control flow. even_first: of q4.
fn store_group(
  thread: u32, used: bool, y: f32, square: f32, place: GroupPlace, even_first: bool,
) {
  let first = thread / 32u * 32u;
  if (thread < GROUP_THREADS) {
    group_values[thread] = vec2(y, square);
  }
  workgroupBarrier();
  let i = thread % 32u;
  if (used && i < 8u) {
    let values = vec4(
      group_values[first + 4u * i].x, group_values[first + 4u * i + 1u].x,
      group_values[first + 4u * i + 2u].x, group_values[first + 4u * i + 3u].x);
    groups_out[place.quad + i * place.stride] = bitcast<vec4<u32>>(values);
  }
  if (used && i == 8u) {
    var squares = 0.0;
    // @unroll
    for (var c = 0u; c < 32u; c++) {
      squares += group_values[first + c].y;
    }
    groups_out[place.quad + 8u * place.stride] =
      vec4(bitcast<u32>(1.0), 0u, bitcast<u32>(squares), 0u);
  }
}
