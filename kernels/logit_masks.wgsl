// logits[rows[i]][id] = the lowest finite f32 where bit id % 32 of word id / 32 of mask i is 0, in
// place, one thread a logit. NaN and infinities stay, so that the row is found out.
//
//   rows    [mask_count], each once
//   masks   [mask_count][ceil(width / 32)]
//   logits  f32 [..][width]

struct Params {
  mask_count: u32,
  width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read> masks: array<u32>;
@group(0) @binding(3) var<storage, read_write> logits: array<f32>;

const MASKED: f32 = -0x1.fffffep+127;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let mask = group.y;
  let id = group.x * 256u + thread;
  if (mask >= params.mask_count || id >= params.width) {
    return;
  }
  let word = masks[mask * ((params.width + 31u) / 32u) + id / 32u];
  if (((word >> (id % 32u)) & 1u) == 1u) {
    return;
  }
  let at = rows[mask] * params.width + id;
  if (is_finite(logits[at])) {
    logits[at] = MASKED;
  }
}
