// How the 128 threads of a workgroup join their parts of a query against latents: thread = 8 lane +
// segment of 16 channels. The kernel declares projected and absorbed (f32) and Params with
// nope_dim, shared_key_dim, latent_dim. Loops: stride / 128 turns.

const THREADS: u32 = 128u;
const LANES: u32 = 16u;
const SEGMENTS: u32 = 8u;

// [lane][16 channels of 8 segments]
var<workgroup> lane_sums: array<f32, 2048>;

// Before a barrier.
fn leave_sum(thread: u32, sum: mat4x4<f32>) {
  // @unroll
  for (var i = 0u; i < 16u; i++) {
    lane_sums[thread / SEGMENTS * THREADS + thread % SEGMENTS * 16u + i] = sum[i / 4u][i % 4u];
  }
}

// `before` and channel `thread` of all lanes, added in order.
fn lanes_total(thread: u32, before: f32) -> f32 {
  var total = before;
  // @unroll
  for (var l = 0u; l < LANES; l++) {
    total += lane_sums[l * THREADS + thread];
  }
  return total;
}

// Channels [latent_dim, stride): qp of the query that begins at `query`, then zeros.
fn copy_shared(query: u32, target_start: u32, stride: u32, thread: u32) {
  for (var i = params.latent_dim + thread; i < stride; i += THREADS) {
    let channel = i - params.latent_dim;
    var value = 0.0;
    if (channel < params.shared_key_dim) {
      value = projected[query + params.nope_dim + channel];
    }
    absorbed[target_start + i] = value;
  }
}
