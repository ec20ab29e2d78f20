// The choice of experts for sequences with one row, as router.wgsl makes it, where several rows
// share experts' weights (decode_experts.wgsl).
//
//   x        activation groups [row_count][X_QUADS][groups] of weight residual
//   router   i32 [row_count][EXPERTS][3 limbs], lib/limbs.wgsl: logits without the norm's factor
//   bias     f32 [EXPERTS]
//   chosen   [row_count][choices] (expert, weight); the shared expert is number EXPERTS
//   experts  u32 [row_count][choices]: the experts alone
//
// One workgroup: one row. Loops: groups / CHOOSERS + EXPERT_BLOCKS CHOICES_MAX / CHOOSERS turns.

struct Params {
  row_count: u32,
  groups: u32,
  columns: u32,
  epsilon: f32,
  choices: u32,
  experts_per_token: u32,
  renormalize: u32,
  routed_scale: f32,
}

// Rows of x that lib/row_norm.wgsl takes.
const X_ROWS: u32 = 1u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> router: array<i32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> chosen: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> experts: array<u32>;

@compute @workgroup_size(CHOOSERS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.x;
  let loaded = load_experts(thread, row);
  gather_squares(thread, array<u32, 1>(row * params.groups * X_QUADS), params.groups);
  workgroupBarrier();
  choose(thread, loaded, row_factor(0u, params.columns, params.epsilon));
  if (thread < params.choices) {
    let pick = choice_of(thread);
    chosen[row * params.choices + thread] = pick;
    experts[row * params.choices + thread] = pick.x;
  }
}
