// One softmax out of those of a row's splits: with M the largest maximum m,
//   z = sum over splits of exp(m - M) z / sum over splits of exp(m - M) l
//
//   rows     u32 [rows][4]: sequence, position, ...; entry first_row + row_start + group.y
//   sums     f32 quads [batch rows][splits][head_count][value_quads]
//   maxima   f32 [batch rows][splits][head_count][2] = m, l
//   context  f32 quads [rows from first_row on][head_count][context_quads], zeros after channel
//            latent_dim
//
// One workgroup: one head of one row. Loops: 2 splits + context_quads / 64 * (1 + splits) turns.

struct Params {
  first_row: u32,
  row_start: u32,
  head_count: u32,
  latent_dim: u32,
  value_quads: u32,
  context_quads: u32,
  split_tokens: u32,
  splits: u32,
}

const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> maxima: array<f32>;
@group(0) @binding(4) var<storage, read_write> context: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = group.x;
  let used = rows[params.first_row + params.row_start + group.y].y / params.split_tokens + 1u;
  let first = group.y * params.splits * params.head_count + head;
  var maximum = maxima[2u * first];
  for (var split = 1u; split < used; split++) {
    maximum = max(maximum, maxima[2u * (first + split * params.head_count)]);
  }
  var total = 0.0;
  for (var split = 0u; split < used; split++) {
    let at = 2u * (first + split * params.head_count);
    total = fma(exp(maxima[at] - maximum), maxima[at + 1u], total);
  }
  let row_head = (params.row_start + group.y) * params.head_count + head;
  for (var quad = thread; quad < params.context_quads; quad += THREADS) {
    var z = vec4(0.0);
    if (quad < params.value_quads) {
      for (var split = 0u; split < used; split++) {
        let at = first + split * params.head_count;
        z += exp(maxima[2u * at] - maximum) * sums[at * params.value_quads + quad];
      }
    }
    // The last quad may end in parts of the shared key.
    let used_channels = vec4(4u * quad) + vec4(0u, 1u, 2u, 3u) < vec4(params.latent_dim);
    context[row_head * params.context_quads + quad] =
      select(vec4(0.0), z / total, used_channels);
  }
}
