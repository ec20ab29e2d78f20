//! Stored elements as f32, exactly.

use crate::half;
use std::arch::wasm32::*;

#[derive(Clone, Copy, PartialEq)]
pub enum Source {
    F32,
    F16,
    Bf16,
    Fp8,
}

impl Source {
    pub fn from_number(number: u32) -> Source {
        match number {
            0 => Source::F32,
            1 => Source::F16,
            2 => Source::Bf16,
            _ => Source::Fp8,
        }
    }

    pub fn element_bytes(self) -> usize {
        match self {
            Source::F32 => 4,
            Source::F16 | Source::Bf16 => 2,
            Source::Fp8 => 1,
        }
    }
}

/// Values of all 256 e4m3fn codes: bias 7, no infinities, 0x7f and 0xff are NaN.
pub fn fp8_table() -> Vec<f32> {
    (0..256_u32)
        .map(|code| {
            let magnitude = match code & 0x7f {
                0x7f => f32::NAN,
                code => f32::from_bits(code << 20) * f32::from_bits((127 + 127 - 7) << 23),
            };
            if code & 0x80 == 0 { magnitude } else { -magnitude }
        })
        .collect()
}

/// Widens one row; `row` has as many elements as `bytes` holds.
pub fn decode_row(bytes: &[u8], source: Source, fp8_table: &[f32], row: &mut [f32]) {
    match source {
        Source::F32 => {
            for (value, bytes) in row.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
            }
        }
        Source::F16 => {
            for (value, bytes) in row.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = half::to_f32(u16::from_le_bytes([bytes[0], bytes[1]]));
            }
        }
        Source::Bf16 => decode_bf16(bytes, row),
        Source::Fp8 => {
            for (value, &code) in row.iter_mut().zip(bytes) {
                *value = fp8_table[usize::from(code)];
            }
        }
    }
}

/// bf16 is the upper half of an f32.
fn decode_bf16(bytes: &[u8], row: &mut [f32]) {
    let zero = u32x4_splat(0);
    let (rows, row_rest) = row.as_chunks_mut::<8>();
    let (blocks, bytes_rest) = bytes.split_at(rows.len() * 16);
    for (eight, bytes) in rows.iter_mut().zip(blocks.chunks_exact(16)) {
        // SAFETY: 16 readable and 32 writable bytes; vector accesses need no alignment.
        unsafe {
            let bits = v128_load(bytes.as_ptr().cast());
            let low = i16x8_shuffle::<8, 0, 9, 1, 10, 2, 11, 3>(bits, zero);
            let high = i16x8_shuffle::<8, 4, 9, 5, 10, 6, 11, 7>(bits, zero);
            v128_store(eight.as_mut_ptr().cast(), low);
            v128_store(eight[4..].as_mut_ptr().cast(), high);
        }
    }
    for (value, bytes) in row_rest.iter_mut().zip(bytes_rest.chunks_exact(2)) {
        *value = f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16);
    }
}

/// The scale grid of an fp8 matrix, [rows / rows_per_scale][columns / columns_per_scale], each
/// rounded up.
pub struct Fp8Scales<'a> {
    scales: &'a [f32],
    rows_per_scale: usize,
    columns_per_scale: usize,
    stride: usize,
}

impl Fp8Scales<'_> {
    pub fn new(
        scales: &[f32],
        rows_per_scale: usize,
        columns_per_scale: usize,
        columns: usize,
    ) -> Fp8Scales<'_> {
        let stride = columns.div_ceil(columns_per_scale);
        Fp8Scales { scales, rows_per_scale, columns_per_scale, stride }
    }

    /// Multiplies row `row` of the matrix by its scales.
    pub fn apply(&self, row: usize, values: &mut [f32]) {
        let scales = &self.scales[row / self.rows_per_scale * self.stride..];
        for (block, &scale) in values.chunks_mut(self.columns_per_scale).zip(scales) {
            for value in block {
                *value *= scale;
            }
        }
    }
}
