// Cached positions in workgroup memory, and what a thread of decode_attention.wgsl does with them;
// that kernel says how its threads share the work.
//
// Arrays are nested so that what an unrolled loop counts is an index of its own: it becomes part of
// the instruction, and the one index that a thread computes is checked once for all positions.

// At most 8.
const POSITIONS: u32 = 8u;
// Fours of heads in a workgroup; an even number.
const HEAD_QUADS: u32 = 4u;
// Rows of 32 quads in an entry, and how many of them are full.
const QUAD_ROWS: u32 = 1u;
const FULL_ROWS: u32 = 0u;
// Rows of 64 quads in the part of an entry that is summed up in z.
const VALUE_ROWS: u32 = 1u;
// Threads that load an entry, and quads that each of them takes.
const LANES: u32 = 16u;
const LOADS: u32 = 1u;

var<workgroup> tile: array<array<array<vec4<f32>, 32>, QUAD_ROWS>, POSITIONS>;
// Scores of four heads of a slice; one slice more, so that positions start in other banks.
var<workgroup> partial: array<array<array<vec4<f32>, HEAD_QUADS>, 33>, POSITIONS>;
var<workgroup> scores: array<array<f32, 4u * HEAD_QUADS>, POSITIONS>;
// exp(score - maximum) of four heads.
var<workgroup> weights: array<array<vec4<f32>, HEAD_QUADS>, POSITIONS>;
var<workgroup> corrections: array<vec4<f32>, HEAD_QUADS>;

// Quads `slice`, slice + 32, ... of the queries of the four heads from `head` on, [quad][channel].
fn load_query(
  query: ptr<function, array<vec4<f32>, 4u * QUAD_ROWS>>, row: u32, head: u32, slice: u32,
) {
  let heads = min(vec4(head) + vec4(0u, 1u, 2u, 3u), vec4(params.head_count - 1u));
  let start = (vec4(row * params.head_count) + heads) * params.quads;
  // @unroll
  for (var i = 0u; i < QUAD_ROWS; i++) {
    let at = start + min(slice + 32u * i, params.quads - 1u);
    let channels = transpose(
      mat4x4(absorbed[at.x], absorbed[at.y], absorbed[at.z], absorbed[at.w]));
    // @unroll
    for (var c = 0u; c < 4u; c++) {
      (*query)[4u * i + c] = channels[c];
    }
  }
}

fn load_entry(
  next: ptr<function, array<latent_quad, LOADS>>, page: u32, position: u32, lane: u32,
) {
  let entry = (page * params.page_tokens + position % params.page_tokens) * params.quads;
  // @unroll
  for (var i = 0u; i < LOADS; i++) {
    (*next)[i] = latents[entry + min(lane + LANES * i, params.quads - 1u)];
  }
}

// Decoded here, once: that is many operations a value. Rare values are few and stored anew.
fn store_entry(next: ptr<function, array<latent_quad, LOADS>>, p: u32, lane: u32) {
  var rare = 0u;
  // @unroll
  for (var i = 0u; i < LOADS; i++) {
    let quad = lane + LANES * i;
    if (quad < params.quads) {
      tile[p][quad / 32u][quad % 32u] = decode_plain_latent((*next)[i]);
    }
    rare |= rare_latent((*next)[i]);
  }
  if (rare != 0u) {
    // @unroll
    for (var i = 0u; i < LOADS; i++) {
      let quad = lane + LANES * i;
      if (quad < params.quads && rare_latent((*next)[i]) != 0u) {
        tile[p][quad / 32u][quad % 32u] = decode_latent((*next)[i]);
      }
    }
  }
}

// The slice's part of the scores of four heads at all positions.
fn score_tile(
  query: ptr<function, array<vec4<f32>, 4u * QUAD_ROWS>>, slice: u32, head_quad: u32,
) {
  var sums = array<vec4<f32>, POSITIONS>();
  if (slice + 32u * FULL_ROWS < params.quads) {
    // @unroll
    for (var i = FULL_ROWS; i < QUAD_ROWS; i++) {
      // @unroll
      for (var p = 0u; p < POSITIONS; p++) {
        let quad = tile[p][i][slice];
        // @unroll
        for (var c = 0u; c < 4u; c++) {
          sums[p] = fma((*query)[4u * i + c], vec4(quad[c]), sums[p]);
        }
      }
    }
  }
  // @unroll
  for (var p = 0u; p < POSITIONS; p++) {
    // @unroll
    for (var i = 0u; i < FULL_ROWS; i++) {
      let quad = tile[p][i][slice];
      // @unroll
      for (var c = 0u; c < 4u; c++) {
        sums[p] = fma((*query)[4u * i + c], vec4(quad[c]), sums[p]);
      }
    }
    partial[p][slice][head_quad] = sums[p];
  }
}

// All slices' parts of a head's score at one position.
fn joined_score(p: u32, head: u32) -> f32 {
  var sums = vec4(0.0);
  // @unroll
  for (var i = 0u; i < 8u; i++) {
    sums += vec4(
      partial[p][4u * i][head / 4u][head % 4u], partial[p][4u * i + 1u][head / 4u][head % 4u],
      partial[p][4u * i + 2u][head / 4u][head % 4u], partial[p][4u * i + 3u][head / 4u][head % 4u]);
  }
  return (sums.x + sums.y) + (sums.z + sums.w);
}

// z of the eight heads from 8 eight on, corrected for the new maxima, plus the tile's weighted
// quads `lane`, lane + 64, ...; what is behind an entry comes to nothing that is stored.
fn add_tile(z: ptr<function, array<vec4<f32>, 8u * VALUE_ROWS>>, eight: u32, lane: u32) {
  let first_correction = corrections[2u * eight];
  let last_correction = corrections[2u * eight + 1u];
  // @unroll
  for (var v = 0u; v < VALUE_ROWS; v++) {
    // @unroll
    for (var h = 0u; h < 4u; h++) {
      (*z)[8u * v + h] *= first_correction[h];
      (*z)[8u * v + 4u + h] *= last_correction[h];
    }
  }
  // @unroll
  for (var p = 0u; p < POSITIONS; p++) {
    let first = weights[p][2u * eight];
    let last = weights[p][2u * eight + 1u];
    // @unroll
    for (var v = 0u; v < VALUE_ROWS; v++) {
      let quad = tile[p][min(2u * v + lane / 32u, QUAD_ROWS - 1u)][lane % 32u];
      // @unroll
      for (var h = 0u; h < 4u; h++) {
        (*z)[8u * v + h] = fma(vec4(first[h]), quad, (*z)[8u * v + h]);
        (*z)[8u * v + 4u + h] = fma(vec4(last[h]), quad, (*z)[8u * v + 4u + h]);
      }
    }
  }
}
