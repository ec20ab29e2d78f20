// Logistic functions that never take exp of a positive number, so nothing overflows.

// 1 / (1 + e^-x).
fn sigmoid(x: f32) -> f32 {
  let e = exp(-abs(x));
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

// x sigmoid(x).
fn silu(x: f32) -> f32 {
  return x * sigmoid(x);
}
