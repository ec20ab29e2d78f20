// Groups of 32 int8 activations, as the integer kernels read them: three quads a group,
//   0, 1   32 signed bytes, q = round(y / scale), scale = max |y| / 127; for q4 weights columns
//          0 2 4 6 of each 8 in the first quad (a word for each 8), 1 3 5 7 in the second
//   2      scale (f32), sum of q (i32), sum of the squares that came along (f32), 0
// A group with NaN or infinity has the scale NaN: int8 would hide it.
//
// The kernel declares groups_out: array<vec4<u32>> (read_write). Its first GROUP_THREADS threads
// have values.

const GROUP_THREADS: u32 = 32u;

// [thread] (y, square), then q.
var<workgroup> group_values: array<vec2<f32>, GROUP_THREADS>;
var<workgroup> group_codes: array<i32, GROUP_THREADS>;

// Column of the group that is byte `byte` of word `word`.
fn group_column(word: u32, byte: u32, even_first: bool) -> u32 {
  return select(4u * word + byte, 8u * (word % 4u) + 2u * byte + word / 4u, even_first);
}

// Threads 32 s + i hold column i of set s: y and a share of the squares. Writes the set's group at
// `place` where `used`. All threads call it, in uniform control flow.
fn store_group(
  thread: u32, used: bool, y: f32, square: f32, place: GroupPlace, even_first: bool,
) {
  let first = thread / 32u * 32u;
  if (thread < GROUP_THREADS) {
    group_values[thread] = vec2(y, square);
  }
  workgroupBarrier();
  var scale = 0.0;
  var finite = true;
  if (used) {
    var largest = 0.0;
    // @unroll
    for (var i = 0u; i < 32u; i++) {
      let value = group_values[first + i].x;
      largest = max(largest, abs(value));
      finite = finite && is_finite(value);
    }
    scale = largest / 127.0;
    let inverse = select(0.0, 1.0 / scale, scale > 0.0);
    group_codes[thread] = i32(round(y * inverse));
  }
  workgroupBarrier();
  let i = thread % 32u;
  if (used && i < 2u) {
    var words = vec4<u32>();
    // @unroll
    for (var w = 0u; w < 4u; w++) {
      let word = 4u * i + w;
      words[w] = pack4xI8(vec4(
        group_codes[first + group_column(word, 0u, even_first)],
        group_codes[first + group_column(word, 1u, even_first)],
        group_codes[first + group_column(word, 2u, even_first)],
        group_codes[first + group_column(word, 3u, even_first)]));
    }
    groups_out[place.quad + i * place.stride] = words;
  }
  if (used && i == 2u) {
    var sum = 0i;
    var squares = 0.0;
    // @unroll
    for (var c = 0u; c < 32u; c++) {
      sum += group_codes[first + c];
      squares += group_values[first + c].y;
    }
    let bits = select(0x7fc00000u, bitcast<u32>(scale), finite);
    groups_out[place.quad + 2u * place.stride] =
      vec4(bits, bitcast<u32>(sum), bitcast<u32>(squares), 0u);
  }
}
