//! How a weight matrix lies in memory.
//!
//! Rows are padded to groups of 4 and columns to blocks of 16 (q8 and q4: two blocks), both with
//! zeros, so that no kernel has a tail. Storage order: [group of 4 rows][block of 16 columns][64
//! elements], the elements of a block in `Format::position` order. A kernel that computes four
//! outputs thus reads one stream.

use crate::formats::{self, Format, GROUP};
use crate::memory::{pad4, rounded, Buffer};

/// fp8 scales as the file holds them: [ceil(rows / rows_per_scale), grid_columns].
pub struct Grid {
    pub rows_per_scale: usize,
    pub columns_per_scale: usize,
    grid_columns: usize,
    values: Vec<f32>,
}

pub struct Matrix {
    pub format: Format,
    pub rows: usize,
    pub columns: usize,
    /// Blocks of 16 columns.
    pub blocks: usize,
    /// Blocks that share one scale (all of them where nothing is scaled).
    pub segment_blocks: usize,
    source: Format,
    data: Buffer,
    grid: Option<Grid>,
    /// [group of 4 rows][segment][row in group]. fp8: times 2^60, made by `seal`; q8 and q4: of
    /// each 32 columns.
    scales: Option<Buffer>,
}

/// The stored format: fp8 whose scale borders cut a block of 16 becomes f32, scaled on sealing.
fn stored(source: Format, columns: usize, columns_per_scale: usize) -> Format {
    let cuts = columns_per_scale < columns && columns_per_scale % 16 != 0;
    if source == Format::Fp8 && cuts {
        Format::F32
    } else {
        source
    }
}

fn segments(columns: usize, columns_per_scale: usize) -> usize {
    columns.div_ceil(columns_per_scale.max(1)).max(1)
}

/// Bytes that a matrix takes once it is sealed, scales included. 64 bits: may exceed wasm32.
pub fn matrix_bytes(source: Format, rows: u64, columns: u64, columns_per_scale: u64) -> u64 {
    let format = stored(source, columns as usize, columns_per_scale as usize);
    let (rows, padded) = (rows.div_ceil(4) * 4, format.padded(columns as usize));
    let elements = rounded(rows * padded as u64 * format.bits() as u64 / 8);
    let scales = match format {
        Format::Fp8 => segments(columns as usize, columns_per_scale as usize),
        Format::Q8 | Format::Q4 => padded / GROUP,
        _ => 0,
    };
    elements + rounded(rows * scales as u64 * 4)
}

impl Matrix {
    /// `per_scale`: rows and columns per scale; ignored but for fp8.
    pub fn new(
        source: Format,
        rows: usize,
        columns: usize,
        per_scale: (usize, usize),
    ) -> Result<Matrix, String> {
        let format = stored(source, columns, per_scale.1);
        let blocks = format.padded(columns) / 16;
        let bytes = (pad4(rows) * blocks * 2) as u64 * format.bits() as u64;
        let grid = (source == Format::Fp8).then(|| {
            let grid_columns = segments(columns, per_scale.1);
            let values = vec![1.0; rows.div_ceil(per_scale.0.max(1)) * grid_columns];
            Grid {
                rows_per_scale: per_scale.0.max(1),
                columns_per_scale: per_scale.1.max(1),
                grid_columns,
                values,
            }
        });
        let scaled = format == Format::Fp8 && per_scale.1 < columns;
        let segment_blocks = if scaled { per_scale.1 / 16 } else { blocks };
        let data = Buffer::bytes(bytes)?;
        let scales = if format.is_grouped() {
            Some(Buffer::floats((pad4(rows) * blocks / 2) as u64)?)
        } else {
            None
        };
        Ok(Matrix { format, rows, columns, blocks, segment_blocks, source, data, grid, scales })
    }

    /// An f32 matrix made from `value(row, column)`.
    pub fn from_values(
        rows: usize,
        columns: usize,
        value: impl Fn(usize, usize) -> f32,
    ) -> Result<Matrix, String> {
        let matrix = Matrix::new(Format::F32, rows, columns, (1, 1))?;
        for row in 0..rows {
            for column in 0..columns {
                let at = matrix.offset(row, column);
                unsafe { *(matrix.data.f32().add(at)) = value(row, column) };
            }
        }
        Ok(matrix)
    }

    pub fn data(&self) -> *const u8 {
        self.data.u8()
    }

    pub fn scales(&self) -> *const f32 {
        self.scales.as_ref().map_or(core::ptr::null(), |scales| scales.f32())
    }

    /// Segments of columns with a scale of their own.
    pub fn segments(&self) -> usize {
        self.blocks.div_ceil(self.segment_blocks)
    }

    /// Bytes of one group of 4 rows.
    pub fn group_bytes(&self) -> usize {
        self.blocks * 8 * self.format.bits()
    }

    /// Where element [row][column] is stored, in elements.
    fn offset(&self, row: usize, column: usize) -> usize {
        let block = row / 4 * self.blocks + column / 16;
        block * 64 + self.format.position(row % 4, column % 16)
    }

    /// Stores a piece of the row-major source that starts `byte_offset` into it.
    pub fn write(&mut self, byte_offset: u64, bytes: &[u8]) {
        if self.source.is_grouped() {
            return self.write_integers(byte_offset, bytes);
        }
        let size = self.source.bits() / 8;
        let first = (byte_offset / size as u64) as usize;
        let (mut row, mut column) = (first / self.columns, first % self.columns);
        for element in bytes.chunks_exact(size) {
            let at = self.offset(row, column);
            unsafe {
                match (self.source, self.format) {
                    (Format::Fp8, Format::F32) => {
                        *self.data.f32().add(at) = formats::decode_e4m3(element[0])
                    }
                    (Format::Fp8, _) => *self.data.u8().add(at) = element[0],
                    (Format::F32, _) => {
                        let bits = [element[0], element[1], element[2], element[3]];
                        *self.data.f32().add(at) = f32::from_le_bytes(bits)
                    }
                    _ => *self.data.u16().add(at) = u16::from_le_bytes([element[0], element[1]]),
                }
            }
            column += 1;
            if column == self.columns {
                (row, column) = (row + 1, 0);
            }
        }
    }

    /// `write` for q8 and q4, whose rows are whole groups.
    fn write_integers(&mut self, byte_offset: u64, bytes: &[u8]) {
        let q4 = self.source == Format::Q4;
        let row_bytes = (self.blocks * 2 * self.source.bits()) as u64;
        let mut row = (byte_offset / row_bytes) as usize;
        let mut at = (byte_offset % row_bytes) as usize;
        for &byte in bytes {
            if q4 {
                self.set_q4(row, at * 2, byte & 15);
                self.set_q4(row, at * 2 + 1, byte >> 4);
            } else {
                unsafe { *self.data.u8().add(self.offset(row, at)) = byte };
            }
            at += 1;
            if at as u64 == row_bytes {
                (row, at) = (row + 1, 0);
            }
        }
    }

    /// The byte and the shift within it of a q4 element.
    fn q4_place(&self, row: usize, column: usize) -> (*mut u8, usize) {
        let at = self.offset(row, column);
        (unsafe { self.data.u8().add(at / 32 * 16 + at % 16) }, at / 16 % 2 * 4)
    }

    fn set_q4(&mut self, row: usize, column: usize, value: u8) {
        let (byte, shift) = self.q4_place(row, column);
        unsafe { *byte = *byte & !(15 << shift) | value << shift };
    }

    /// Stores a piece of the f16 scales of a q8 or q4 matrix, rows of an even count of groups.
    pub fn write_group_scales(&mut self, byte_offset: u64, bytes: &[u8]) {
        let Some(scales) = &self.scales else { return };
        let groups = self.blocks / 2;
        let stride = groups.next_multiple_of(2);
        let first = (byte_offset / 2) as usize;
        for (i, bits) in bytes.chunks_exact(2).enumerate() {
            let (row, group) = ((first + i) / stride, (first + i) % stride);
            if group < groups {
                let value = formats::decode_f16(u16::from_le_bytes([bits[0], bits[1]]));
                let at = (row / 4 * groups + group) * 4 + row % 4;
                unsafe { *scales.f32().add(at) = value };
            }
        }
    }

    /// The integer at [row][column] of a q8 or q4 matrix times its scale.
    fn grouped_value(&self, row: usize, column: usize) -> f32 {
        let integer = if self.format == Format::Q4 {
            let (byte, shift) = self.q4_place(row, column);
            (unsafe { *byte } >> shift & 15) as i32 - 8
        } else {
            unsafe { *self.data.u8().add(self.offset(row, column)) as i8 as i32 }
        };
        let at = (row / 4 * (self.blocks / 2) + column / GROUP) * 4 + row % 4;
        integer as f32 * unsafe { *self.scales().add(at) }
    }

    pub fn write_scales(&mut self, scales: &[f32]) {
        if let Some(grid) = &mut self.grid {
            grid.values.copy_from_slice(scales);
        }
    }

    /// Element [row][column], its scale applied. Only before `seal`.
    pub fn value(&self, row: usize, column: usize) -> f32 {
        let at = self.offset(row, column);
        let element = unsafe {
            match self.format {
                Format::F32 => *self.data.f32().add(at),
                Format::F16 => formats::decode_f16(*self.data.u16().add(at)),
                Format::Bf16 => formats::decode_bf16(*self.data.u16().add(at)),
                Format::Fp8 => formats::decode_e4m3(*self.data.u8().add(at)),
                Format::Q8 | Format::Q4 => return self.grouped_value(row, column),
            }
        };
        element * self.grid.as_ref().map_or(1.0, |grid| grid.at(row, column))
    }

    /// Row `row` as f32, `columns` values. Only before `seal`.
    pub fn row(&self, row: usize) -> Vec<f32> {
        (0..self.columns).map(|column| self.value(row, column)).collect()
    }

    /// Ends loading: puts the scales where the kernels read them.
    pub fn seal(&mut self) -> Result<(), String> {
        let Some(grid) = self.grid.take() else { return Ok(()) };
        if self.format == Format::F32 {
            for row in 0..self.rows {
                for column in 0..self.columns {
                    let at = self.offset(row, column);
                    unsafe { *self.data.f32().add(at) *= grid.at(row, column) };
                }
            }
            return Ok(());
        }
        let scales = Buffer::floats((pad4(self.rows) * grid.grid_columns) as u64)?;
        for row in 0..self.rows {
            let poisoned = self.has_nan(row);
            for segment in 0..grid.grid_columns {
                let scale = grid.at(row, segment * grid.columns_per_scale);
                let at = (row / 4 * grid.grid_columns + segment) * 4 + row % 4;
                let value = if poisoned { f32::NAN } else { scale * formats::FP8_HALF_FACTOR };
                unsafe { *scales.f32().add(at) = value };
            }
        }
        self.scales = Some(scales);
        Ok(())
    }

    /// A NaN code makes every sum of its row NaN, whatever the input: its scales can say so, and
    /// the kernels need not look.
    fn has_nan(&self, row: usize) -> bool {
        let code = |column| unsafe { *self.data.u8().add(self.offset(row, column)) };
        (0..self.columns).any(|column| code(column) & 0x7f == 0x7f)
    }
}

impl Grid {
    fn at(&self, row: usize, column: usize) -> f32 {
        let row = row / self.rows_per_scale * self.grid_columns;
        self.values[row + column / self.columns_per_scale]
    }
}
