// Products of W_ROWS rows of a q8 or q4 matrix with X_ROWS rows of int8 activations, by a workgroup
// of X_THREADS x W_THREADS threads, X_REGISTERS x W_REGISTERS products a thread.
//
// Order of every sum, whatever the tile: the groups of 32 columns one after the other, each an
// exact integer times the product of its two scales.
//
// The kernel declares x_words (vec4<u32> [..][4 steps]), x_scales (vec2<f32> [..][steps]), weights
// (vec4<u32>), Params with weight_rows, groups (ceil(columns / 32)), steps (ceil(groups / 2)), and
//   fn x_row(position) -> u32                row of x_words at a position
//   fn store(position, row, value)           takes a product of row `row` of the part
// Loops: 3 (steps + 1) turns.

override X_REGISTERS: u32 = 8u;
override W_REGISTERS: u32 = 8u;
override X_THREADS: u32 = 8u;
override W_THREADS: u32 = 16u;
override THREADS: u32 = 128u;
override X_ROWS: u32 = 64u;
override W_ROWS: u32 = 128u;
// 1: rows of x beyond the last are left out of the products, X_THREADS at a time.
override SKIP_ROWS: u32 = 0u;
// Loads of a thread for one step: quads of x, quads of the weights.
override X_LOADS: u32 = 2u;
override W_LOADS: u32 = 4u;

// [quad of a step][row], two rows apart so that the threads that fill them hit different banks.
var<workgroup> x_tile: array<vec4<u32>, 4u * (X_ROWS + 2u)>;
var<workgroup> w_tile: array<vec4<u32>, 4u * (W_ROWS + 2u)>;
// [group of a step][row]
var<workgroup> x_scale_tile: array<f32, 2u * X_ROWS>;
var<workgroup> w_scale_tile: array<f32, 2u * W_ROWS>;

// Rows [first_row, + W_ROWS) of the matrix whose block begins at quad `block`, with positions
// [x_start, + X_ROWS) below x_end.
fn multiply(thread: u32, block: u32, first_row: u32, x_start: u32, x_end: u32) {
  let x_thread = thread / W_THREADS;
  let w_thread = thread % W_THREADS;
  let last_row = params.weight_rows - 1u;
  let scale_start = 4u * (block + params.weight_rows * params.groups * GROUP_QUADS);
  var sums = array<f32, 64>();
  var x_next = array<vec4<u32>, 8>();
  var w_next = array<vec4<u32>, 8>();
  var x_scale = vec2(0.0);
  var w_scale = vec2(0.0);
  // Where each of the thread's loads begins.
  var x_from = array<u32, 8>();
  var w_from = array<u32, 8>();
  // @unroll
  for (var l = 0u; l < X_LOADS; l++) {
    let at = thread + l * THREADS;
    x_from[l] = x_row(min(x_start + at / 4u, x_end - 1u)) * params.steps * 4u + at % 4u;
  }
  // @unroll
  for (var l = 0u; l < W_LOADS; l++) {
    let row = min(first_row + (thread + l * THREADS) / (2u * GROUP_QUADS), last_row);
    w_from[l] = block + row * params.groups * GROUP_QUADS;
  }
  let x_scale_from = x_row(min(x_start + thread, x_end - 1u)) * params.steps;
  let w_scale_from = scale_start + min(first_row + thread, last_row) * params.steps;
  for (var step = 0u; step <= params.steps; step++) {
    // The next step's loads are under way while this one's tile is multiplied.
    if (step < params.steps) {
      // @unroll
      for (var l = 0u; l < X_LOADS; l++) {
        x_next[l] = x_words[x_from[l] + 4u * step];
      }
      // @unroll
      for (var l = 0u; l < W_LOADS; l++) {
        let quad = 2u * GROUP_QUADS * step + (thread + l * THREADS) % (2u * GROUP_QUADS);
        w_next[l] = weights[w_from[l] + min(quad, params.groups * GROUP_QUADS - 1u)];
      }
      x_scale = x_scales[x_scale_from + step];
      let word = w_scale_from + step;
      w_scale = f16_pair(weights[word / 4u][word % 4u]);
    }
    if (step > 0u) {
      for (var half = 0u; half < 2u; half++) {
        var w0 = array<vec4<u32>, 8>();
        var w1 = array<vec4<u32>, 8>();
        var scales = array<f32, 8>();
        // @unroll
        for (var j = 0u; j < W_REGISTERS; j++) {
          let at = 2u * half * (W_ROWS + 2u) + w_thread + j * W_THREADS;
          w0[j] = w_tile[at];
          w1[j] = w_tile[at + W_ROWS + 2u];
          scales[j] = w_scale_tile[half * W_ROWS + w_thread + j * W_THREADS];
        }
        // @unroll
        for (var i = 0u; i < X_REGISTERS; i++) {
          if (SKIP_ROWS == 0u || x_start + i * X_THREADS < x_end) {
            let at = 2u * half * (X_ROWS + 2u) + x_thread + i * X_THREADS;
            let x0 = x_tile[at];
            let x1 = x_tile[at + X_ROWS + 2u];
            let scale = x_scale_tile[half * X_ROWS + x_thread + i * X_THREADS];
            // @unroll
            for (var j = 0u; j < W_REGISTERS; j++) {
              sums[8u * i + j] =
                fma(group_dot(x0, x1, w0[j], w1[j]), scale * scales[j], sums[8u * i + j]);
            }
          }
        }
      }
    }
    workgroupBarrier();
    if (step < params.steps) {
      // @unroll
      for (var l = 0u; l < X_LOADS; l++) {
        let at = thread + l * THREADS;
        if (at < 4u * X_ROWS) {
          x_tile[at % 4u * (X_ROWS + 2u) + at / 4u] = x_next[l];
        }
      }
      // @unroll
      for (var l = 0u; l < W_LOADS; l++) {
        let at = thread + l * THREADS;
        if (at < 2u * GROUP_QUADS * W_ROWS) {
          let start = at % (2u * GROUP_QUADS) * LOAD_QUADS;
          // @unroll
          for (var part = 0u; part < 2u; part++) {
            if (part < LOAD_QUADS) {
              w_tile[(start + part) * (W_ROWS + 2u) + at / (2u * GROUP_QUADS)] =
                unpacked(w_next[l], part);
            }
          }
        }
      }
      // A group of the padding has scale 0 in x; its weights are whatever was there.
      if (thread < X_ROWS) {
        x_scale_tile[thread] = x_scale.x;
        x_scale_tile[X_ROWS + thread] = x_scale.y;
      }
      if (thread < W_ROWS) {
        w_scale_tile[thread] = w_scale.x;
        w_scale_tile[W_ROWS + thread] = select(0.0, w_scale.y, 2u * step + 1u < params.groups);
      }
    }
    workgroupBarrier();
  }
  // @unroll
  for (var i = 0u; i < X_REGISTERS; i++) {
    // @unroll
    for (var j = 0u; j < W_REGISTERS; j++) {
      let position = x_start + x_thread + i * X_THREADS;
      let row = first_row + w_thread + j * W_THREADS;
      if (position < x_end && row < params.weight_rows) {
        store(position, row, sums[8u * i + j]);
      }
    }
  }
}
