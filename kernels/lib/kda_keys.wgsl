// What decode_kda_step.wgsl and decode_kda_update.wgsl share: a head's q, k and retentions, and the
// factors that bring q and k to unit length. Sums over key channels have PARTS partial sums, of
// KEY_PART channels each in ascending order, which are added in order.

const PARTS: u32 = 4u;
const KEY_PART: u32 = 32u;
const KEY_DIM: u32 = PARTS * KEY_PART;
// Squares that each of 16 partial sums adds: KEY_DIM / 16.
const SQUARE_TURNS: u32 = 8u;
const L2_EPSILON: f32 = 1e-6;

var<workgroup> q: array<f32, KEY_DIM>;
var<workgroup> k: array<f32, KEY_DIM>;
var<workgroup> r: array<f32, KEY_DIM>;
// Of q, then of k.
var<workgroup> square_parts: array<f32, 32>;

// Between two barriers, of which the first follows the stores to q and k.
fn leave_squares(thread: u32) {
  if (thread < 32u) {
    var sum = 0.0;
    // @unroll
    for (var i = 0u; i < SQUARE_TURNS; i++) {
      let d = thread % 16u + 16u * i;
      let value = select(k[d], q[d], thread < 16u);
      sum = fma(value, value, sum);
    }
    square_parts[thread] = sum;
  }
}

fn length_factor(first: u32) -> f32 {
  var sum = 0.0;
  // @unroll
  for (var i = 0u; i < 16u; i++) {
    sum += square_parts[first + i];
  }
  return 1.0 / sqrt(sum + L2_EPSILON);
}

fn q_factor() -> f32 {
  return length_factor(0u) / sqrt(f32(KEY_DIM));
}

fn k_factor() -> f32 {
  return length_factor(16u);
}
