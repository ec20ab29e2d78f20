//! f16 as bits: round to nearest, ties to even.

/// Bits of infinity, which are also all bits of the exponent.
pub const INFINITY: u16 = 0x7c00;

/// Nearest f16; what is too large becomes infinity and NaN stays one.
pub fn from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    // 65520, from which on the nearest is 65536.
    if magnitude >= 0x477f_f000 {
        return sign | INFINITY;
    }
    // 2^-14, the smallest normal number.
    if magnitude < 0x3880_0000 {
        // Adding 1/2 leaves the multiple of 2^-24 in the lowest bits, rounded by the addition.
        let sum = f32::from_bits(magnitude) + 0.5;
        return sign | (sum.to_bits() - 0.5_f32.to_bits()) as u16;
    }
    let odd = (magnitude >> 13) & 1;
    let rounded = magnitude + 0xfff + odd - ((127 - 15) << 23);
    sign | (rounded >> 13) as u16
}

/// Exact.
pub fn to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let sign = u32::from(bits & 0x8000) << 16;
    // The exponent's bias is 15 and not 127; this also scales subnormal numbers right.
    let value = f32::from_bits(magnitude) * f32::from_bits((127 + 127 - 15) << 23);
    let value = if magnitude >= u32::from(INFINITY) << 13 {
        f32::from_bits(magnitude | 0x7f80_0000)
    } else {
        value
    };
    f32::from_bits(value.to_bits() | sign)
}

/// A row of values; as `from_f32`, four at once where all are normal in f16.
pub fn row_from_f32(values: &[f32], row: &mut [u16]) {
    let (fours, rest) = values.as_chunks::<4>();
    let (targets, target_rest) = row.as_chunks_mut::<4>();
    for (four, target) in fours.iter().zip(targets) {
        let normal = |value: f32| (2.0_f32.powi(-14)..65504.0).contains(&value.abs());
        if four.iter().all(|&value| normal(value)) {
            for (bits, value) in target.iter_mut().zip(four) {
                let word = value.to_bits();
                let magnitude = word & 0x7fff_ffff;
                let odd = (magnitude >> 13) & 1;
                let rounded = magnitude.wrapping_add(0xfff + odd).wrapping_sub((127 - 15) << 23);
                *bits = (word >> 16) as u16 & 0x8000 | (rounded >> 13) as u16;
            }
        } else {
            *target = four.map(from_f32);
        }
    }
    for (bits, &value) in target_rest.iter_mut().zip(rest) {
        *bits = from_f32(value);
    }
}
