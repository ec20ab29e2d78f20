// Columns of a KDA chunk, one a thread, once the pair products are known. Belongs to
// kda_chunk_prepare.wgsl, which declares params, mixed, retention, kept and
//   lower  f32 [16 i][16 j] = diag(beta) Akk, strictly lower triangular, in workgroup memory
// `rows` rows of the chunk are there; the others count as k = 0, beta = 0, r = 1.

// x <- (I + lower)^-1 x.
fn solve(x: ptr<function, array<f32, 16>>) {
  // @unroll
  for (var i = 1u; i < 16u; i++) {
    // @unroll
    for (var j = 0u; j < 15u; j++) {
      if (j < i) {
        (*x)[i] = fma(-lower[i * ROWS + j], (*x)[j], (*x)[i]);
      }
    }
  }
}

// Column d of q, k and W.
fn key_column(q_at: u32, k_at: u32, r_at: u32, kept_at: u32, betas: array<f32, 16>, rows: u32) {
  let stride = params.mixed_stride;
  let r_stride = params.head_count * params.key_dim;
  var r = array<f32, 16>();
  var k = array<f32, 16>();
  var w = array<f32, 16>();
  var product = 1.0;
  // @unroll
  for (var i = 0u; i < 16u; i++) {
    r[i] = 1.0;
    if (i < rows) {
      r[i] = retention[r_at + i * r_stride];
      k[i] = mixed[k_at + i * stride];
      product *= r[i];
      mixed[q_at + i * stride] *= product;
      w[i] = betas[i] * k[i] * product;
    }
  }
  kept[kept_at] = product;
  solve(&w);
  product = 1.0;
  // @unroll
  for (var step = 0u; step < 16u; step++) {
    if (15u - step < rows) {
      retention[r_at + (15u - step) * r_stride] = w[15u - step];
      mixed[k_at + (15u - step) * stride] = k[15u - step] * product;
      product *= r[15u - step];
    }
  }
}

// Column of v, which becomes U.
fn value_column(v_at: u32, betas: array<f32, 16>, rows: u32) {
  var u = array<f32, 16>();
  // @unroll
  for (var i = 0u; i < 16u; i++) {
    if (i < rows) {
      u[i] = betas[i] * mixed[v_at + i * params.mixed_stride];
    }
  }
  solve(&u);
  // @unroll
  for (var i = 0u; i < 16u; i++) {
    if (i < rows) {
      mixed[v_at + i * params.mixed_stride] = u[i];
    }
  }
}
