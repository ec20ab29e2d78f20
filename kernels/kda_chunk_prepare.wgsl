// The part of a KDA chunk that needs no state, for all chunks and heads at once: the chunkwise form
// of the Kimi Linear report. With i, j rows of a chunk, R[i][j] = product of r over rows
// j + 1 .. i and P[i] = product over rows 0 .. i:
//   Akk[i][j] = sum over d of k[i] k[j] R[i][j] for j < i, Aqk the same with q[i] and j <= i
//   (I + diag(beta) Akk) [U | W] = diag(beta) [V | K P], by forward substitution
// Every factor is a product of retentions, in [0, 1].
//
//   mixed       f32 [rows][mixed_stride]: q | k | v  ->  q P | k (product over later rows) | U
//   retention   f32 [rows][head_count][key_dim]: r   ->  W
//   beta        f32 [rows][head_count]
//   chunks      u32 [..][4]: first row, rows, ...; entry group.y
//   scores      f32 [chunks][head_count][16 i][16 j] = Aqk, 0 where j > i or i >= rows
//   kept        f32 [chunks][head_count][key_dim] = product of r over the chunk
//
// Rows beyond a short chunk count as k = 0, beta = 0, r = 1 and are neither read nor written.
// One workgroup: one head of one chunk; the columns are in lib/kda_columns.wgsl.
// Loops: key_dim / 4 + (key_dim + value_dim) / 64 turns.

struct Params {
  head_count: u32,
  key_dim: u32,
  value_dim: u32,
  mixed_stride: u32,
}

const THREADS: u32 = 64u;
const ROWS: u32 = 16u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> beta: array<f32>;
@group(0) @binding(2) var<storage, read> chunks: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> mixed: array<f32>;
@group(0) @binding(4) var<storage, read_write> retention: array<f32>;
@group(0) @binding(5) var<storage, read_write> scores: array<f32>;
@group(0) @binding(6) var<storage, read_write> kept: array<f32>;

// Sums over the key channels d % 4 = part: [part][i][j].
var<workgroup> kk_parts: array<f32, 1024>;
var<workgroup> qk_parts: array<f32, 1024>;
// diag(beta) Akk, strictly lower triangular: [i][j].
var<workgroup> lower: array<f32, 256>;

// Thread (part, j): products of row j's key with later rows, retained along the way.
fn pair_sums(q_start: u32, k_start: u32, r_start: u32, row_count: u32, thread: u32) {
  let j = thread % ROWS;
  var kk = array<f32, 16>();
  var qk = array<f32, 16>();
  if (j < row_count) {
    for (var d = thread / ROWS; d < params.key_dim; d += 4u) {
      var carried = mixed[k_start + j * params.mixed_stride + d];
      // @unroll
      for (var i = 0u; i < ROWS; i++) {
        if (i >= j && i < row_count) {
          if (i > j) {
            carried *= retention[r_start + i * params.head_count * params.key_dim + d];
            kk[i] = fma(mixed[k_start + i * params.mixed_stride + d], carried, kk[i]);
          }
          qk[i] = fma(mixed[q_start + i * params.mixed_stride + d], carried, qk[i]);
        }
      }
    }
  }
  // @unroll
  for (var i = 0u; i < ROWS; i++) {
    kk_parts[thread / ROWS * 256u + i * ROWS + j] = kk[i];
    qk_parts[thread / ROWS * 256u + i * ROWS + j] = qk[i];
  }
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.x;
  let chunk = chunks[group.y];
  let rows = chunk.y;
  let keys = params.head_count * params.key_dim;
  let q_start = chunk.x * params.mixed_stride + head * params.key_dim;
  let v_start = chunk.x * params.mixed_stride + 2u * keys + head * params.value_dim;
  let r_start = chunk.x * keys + head * params.key_dim;
  let chunk_head = group.y * params.head_count + head;
  pair_sums(q_start, q_start + keys, r_start, rows, thread);
  var betas = array<f32, 16>();
  // @unroll
  for (var i = 0u; i < ROWS; i++) {
    if (i < rows) {
      betas[i] = beta[(chunk.x + i) * params.head_count + head];
    }
  }
  workgroupBarrier();
  // @unroll
  for (var turn = 0u; turn < 4u; turn++) {
    let at = turn * THREADS + thread;
    let kk = kk_parts[at] + kk_parts[at + 256u] + kk_parts[at + 512u] + kk_parts[at + 768u];
    let qk = qk_parts[at] + qk_parts[at + 256u] + qk_parts[at + 512u] + qk_parts[at + 768u];
    scores[chunk_head * 256u + at] = qk;
    let row = chunk.x + min(at / ROWS, rows - 1u);
    lower[at] = kk * beta[row * params.head_count + head];
  }
  workgroupBarrier();
  for (var c = thread; c < params.key_dim + params.value_dim; c += THREADS) {
    if (c < params.key_dim) {
      let kept_at = chunk_head * params.key_dim + c;
      key_column(q_start + c, q_start + keys + c, r_start + c, kept_at, betas, rows);
    } else {
      value_column(v_start + c - params.key_dim, betas, rows);
    }
  }
}
