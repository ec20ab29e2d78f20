// Rows of a chunk in workgroup memory, and the thread's part of the state, for kda_chunk_scan.wgsl.

const THREADS: u32 = 128u;
const ROWS: u32 = 16u;
const COLUMNS: u32 = 16u;
const PARTS: u32 = 8u;
// Quads of key channels of a part, and of all; values of a tile that one thread brings.
const PART_QUADS: u32 = 1u;
const KEY_QUADS: u32 = 8u;
const LOADS: u32 = 4u;

// [row][key channel], zeros beyond the chunk's rows and the head's channels: W, then k later; q P.
var<workgroup> tile: array<f32, ROWS * KEY_QUADS * 4u>;
var<workgroup> q_tile: array<f32, ROWS * KEY_QUADS * 4u>;
// [part][row][column]
var<workgroup> parts: array<f32, 2048>;
// N: [row][column], 0 beyond the chunk's rows and the head's columns.
var<workgroup> values: array<f32, 256>;

fn quad_of(row: u32, quad: u32) -> vec4<f32> {
  let at = (row * KEY_QUADS + quad) * 4u;
  return vec4(tile[at], tile[at + 1u], tile[at + 2u], tile[at + 3u]);
}

fn q_quad_of(row: u32, quad: u32) -> vec4<f32> {
  let at = (row * KEY_QUADS + quad) * 4u;
  return vec4(q_tile[at], q_tile[at + 1u], q_tile[at + 2u], q_tile[at + 3u]);
}

// The sum over the parts for row i and the thread's column.
fn part_sum(i: u32, column: u32) -> f32 {
  var sum = 0.0;
  // @unroll
  for (var p = 0u; p < 8u; p++) {
    sum += parts[p * 256u + i * COLUMNS + column];
  }
  return sum;
}

// S <- diag(kept) S + (k later)^T N for the thread's elements.
fn advance(s: ptr<function, array<vec4<f32>, PART_QUADS>>, kept_start: u32, part: u32, lane: u32) {
  // @unroll
  for (var j = 0u; j < PART_QUADS; j++) {
    let quad = part * PART_QUADS + j;
    // @unroll
    for (var c = 0u; c < 4u; c++) {
      (*s)[j][c] *= kept[kept_start + min(4u * quad + c, params.key_dim - 1u)];
    }
    // @unroll
    for (var i = 0u; i < ROWS; i++) {
      let k = quad_of(i, min(quad, KEY_QUADS - 1u));
      (*s)[j] = fma(k, vec4(values[i * COLUMNS + lane]), (*s)[j]);
    }
  }
}
