//! What `wasm/quantizer.ts` calls. Pieces of files are read into this module's memory and leave it
//! from here: each byte is copied once on its way to the device.

mod decode;
mod groups;
mod half;

use crate::decode::{Fp8Scales, Source, decode_row};
use crate::groups::{GROUP, GroupFormat, quantize_group};
use wasm_bindgen::prelude::*;

/// What `quantize` and `convert_scales` return when every value could be stored.
const ALL_STORED: i32 = -1;

#[wasm_bindgen]
pub struct Quantizer {
    input: Vec<u8>,
    elements: Vec<u8>,
    /// f16 bits.
    scales: Vec<u16>,
    fp8_table: Vec<f32>,
    fp8_scales: Vec<f32>,
    /// One row as f32, padded with zeros to whole groups.
    row: Vec<f32>,
}

#[wasm_bindgen]
impl Quantizer {
    /// Buffers for pieces of `piece_bytes`, whatever their format and columns.
    #[wasm_bindgen(constructor)]
    pub fn new(piece_bytes: usize) -> Quantizer {
        Quantizer {
            input: vec![0; piece_bytes],
            elements: vec![0; piece_bytes],
            // A row of one group has two scales.
            scales: vec![0; piece_bytes / GROUP * 2],
            fp8_table: decode::fp8_table(),
            fp8_scales: Vec::new(),
            row: Vec::new(),
        }
    }

    pub fn input_address(&mut self) -> *mut u8 {
        self.input.as_mut_ptr()
    }

    pub fn elements_address(&self) -> *const u8 {
        self.elements.as_ptr()
    }

    pub fn scales_address(&self) -> *const u16 {
        self.scales.as_ptr()
    }

    /// The scale grid of the fp8 matrix that comes next.
    pub fn set_fp8_scales(&mut self, scales: Vec<f32>) {
        self.fp8_scales = scales;
    }

    /// Rounds `rows` rows of `columns` columns, the first of which is `first_row` of its matrix.
    /// `source`: 0 f32, 1 f16, 2 bf16, 3 fp8. `bits`: 8 or 4. Returns the row that holds a value
    /// which isn't finite or is too large for an f16 scale, or -1.
    #[allow(clippy::too_many_arguments)]
    pub fn quantize(
        &mut self,
        source: u32,
        bits: u32,
        first_row: usize,
        rows: usize,
        columns: usize,
        rows_per_scale: usize,
        columns_per_scale: usize,
    ) -> i32 {
        let source = Source::from_number(source);
        let format = if bits == 8 { GroupFormat::Q8 } else { GroupFormat::Q4 };
        let groups = columns.div_ceil(GROUP);
        let stride = groups.next_multiple_of(2);
        let scales = Fp8Scales::new(&self.fp8_scales, rows_per_scale, columns_per_scale, columns);
        self.row.clear();
        self.row.resize(groups * GROUP, 0.0);
        let row_bytes = columns * source.element_bytes();
        let group_bytes = format.group_bytes();
        for row in 0..rows {
            let bytes = &self.input[row * row_bytes..(row + 1) * row_bytes];
            decode_row(bytes, source, &self.fp8_table, &mut self.row[..columns]);
            if source == Source::Fp8 {
                scales.apply(first_row + row, &mut self.row[..columns]);
            }
            let target = &mut self.elements[row * groups * group_bytes..][..groups * group_bytes];
            let targets = target.chunks_exact_mut(group_bytes);
            let row_scales = &mut self.scales[row * stride..(row + 1) * stride];
            row_scales[stride - 1] = 0;
            for ((values, elements), scale) in
                self.row.chunks_exact(GROUP).zip(targets).zip(row_scales)
            {
                match quantize_group(values, format, elements) {
                    Some(bits) => *scale = bits,
                    None => return (first_row + row) as i32,
                }
            }
        }
        ALL_STORED
    }

    /// Turns `rows` rows of `groups` scales of type `source` (0 f32, 1 f16, 2 bf16) into f16, rows
    /// padded to an even count. Returns the row that holds one which f16 can't hold, or -1.
    pub fn convert_scales(
        &mut self,
        source: u32,
        first_row: usize,
        rows: usize,
        groups: usize,
    ) -> i32 {
        let source = Source::from_number(source);
        let stride = groups.next_multiple_of(2);
        self.row.clear();
        self.row.resize(groups, 0.0);
        let row_bytes = groups * source.element_bytes();
        for row in 0..rows {
            let bytes = &self.input[row * row_bytes..(row + 1) * row_bytes];
            let target = &mut self.scales[row * stride..(row + 1) * stride];
            target[stride - 1] = 0;
            let target = &mut target[..groups];
            if source == Source::F16 {
                for (bits, bytes) in target.iter_mut().zip(bytes.chunks_exact(2)) {
                    *bits = u16::from_le_bytes([bytes[0], bytes[1]]);
                }
            } else {
                decode_row(bytes, source, &self.fp8_table, &mut self.row);
                half::row_from_f32(&self.row, target);
            }
            let largest = target.iter().fold(0, |largest, bits| largest.max(bits & 0x7fff));
            if largest >= half::INFINITY {
                return (first_row + row) as i32;
            }
        }
        ALL_STORED
    }
}
