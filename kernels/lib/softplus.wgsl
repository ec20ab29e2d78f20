// ln(1 + e^x) without overflow; x itself for x > 20, as the reference takes it.

// max(x, 0) + ln(1 + e), e = e^-|x| in [0, 1]: 2 artanh(e / (2 + e)) as a series, whose argument is
// at most 1/3. The ninth term is below 2e-9. ln itself would lose the digits of a small e in 1 + e.
// The last sum is an fma as written, so that all compilers round it alike in all kernels.
fn softplus(x: f32) -> f32 {
  if (x > 20.0) {
    return x;
  }
  let e = exp(-abs(x));
  let s = e / (2.0 + e);
  let z = s * s;
  var sum = 1.0 / 17.0;
  sum = fma(sum, z, 1.0 / 15.0);
  sum = fma(sum, z, 1.0 / 13.0);
  sum = fma(sum, z, 1.0 / 11.0);
  sum = fma(sum, z, 1.0 / 9.0);
  sum = fma(sum, z, 1.0 / 7.0);
  sum = fma(sum, z, 1.0 / 5.0);
  sum = fma(sum, z, 1.0 / 3.0);
  return fma(2.0 * s, fma(sum, z, 1.0), max(x, 0.0));
}
