// Eight cached positions in workgroup memory, and what a thread of decode_attention.wgsl does with
// them; that kernel says how its threads share the work.

const POSITIONS: u32 = 8u;
const SLICES: u32 = 16u;
// Heads of which one thread holds parts of z: 32 / SLICES.
const HEADS: u32 = 2u;
// Quads of an entry in a slice of the query; quads of z that one thread holds of a head; quads of 8
// entries that one thread loads.
const SLICE_QUADS: u32 = 1u;
const VALUE_QUADS: u32 = 1u;
const LOADS: u32 = 1u;

// [position][SLICES slices of SLICE_QUADS], zeros behind an entry.
var<workgroup> tile: array<vec4<f32>, POSITIONS * SLICES * SLICE_QUADS>;
// [slice][position][head]
var<workgroup> partial: array<f32, 256u * SLICES>;
// [position][head]: scores, then exp(score - maximum).
var<workgroup> scores: array<f32, 256>;
var<workgroup> corrections: array<f32, 32>;

// Quad `index` of the 8 entries from position `start` on; zeros from `end` on.
fn entry_quad(row: vec4<u32>, start: u32, end: u32, index: u32) -> vec4<f32> {
  let position = start + index / (SLICES * SLICE_QUADS);
  let quad = index % (SLICES * SLICE_QUADS);
  if (position >= end || quad >= params.quads) {
    return vec4(0.0);
  }
  let page = pages[row.w + position / params.page_tokens];
  let entry = (page * params.page_tokens + position % params.page_tokens) * params.quads;
  return decode_latent(latents[entry + quad]);
}

// This slice's parts of the head's scores at the tile's positions, into `partial`.
fn score_tile(query: ptr<function, array<vec4<f32>, SLICE_QUADS>>, slice: u32, head: u32) {
  // @unroll
  for (var p = 0u; p < 8u; p++) {
    var sum = 0.0;
    // @unroll
    for (var i = 0u; i < SLICE_QUADS; i++) {
      sum += dot((*query)[i], tile[(p * SLICES + slice) * SLICE_QUADS + i]);
    }
    partial[(slice * 8u + p) * 32u + head] = sum;
  }
}

// z and the totals of the thread's heads, corrected for the new maximum, plus the tile's weights.
fn add_tile(
  z: ptr<function, array<vec4<f32>, VALUE_QUADS * HEADS>>,
  totals: ptr<function, array<f32, HEADS>>, slice: u32, head: u32,
) {
  // @unroll
  for (var h = 0u; h < HEADS; h++) {
    let correction = corrections[HEADS * slice + h];
    (*totals)[h] *= correction;
    // @unroll
    for (var v = 0u; v < VALUE_QUADS; v++) {
      (*z)[v * HEADS + h] *= correction;
    }
  }
  // @unroll
  for (var p = 0u; p < 8u; p++) {
    // @unroll
    for (var h = 0u; h < HEADS; h++) {
      (*totals)[h] += scores[p * 32u + HEADS * slice + h];
    }
    // @unroll
    for (var v = 0u; v < VALUE_QUADS; v++) {
      let at = min(head + 32u * v, SLICES * SLICE_QUADS - 1u);
      let c = tile[p * SLICES * SLICE_QUADS + at];
      // @unroll
      for (var h = 0u; h < HEADS; h++) {
        let weight = scores[p * 32u + HEADS * slice + h];
        (*z)[v * HEADS + h] = fma(vec4(weight), c, (*z)[v * HEADS + h]);
      }
    }
  }
}
