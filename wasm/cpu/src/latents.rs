//! The paged latent cache of one MLA layer: [pages][page_tokens][latent | shared key], f16 or f32.

use crate::formats::{decode_f16, encode_f16, f16_lanes};
use crate::memory::Buffer;
use crate::simd::*;
use core::arch::wasm32::*;

/// Positions of one tile of attention. Tiles begin at multiples of it, whatever the pages are.
pub const TILE: usize = 32;

pub struct Latents {
    values: Buffer,
    width: usize,
    page_tokens: usize,
    half: bool,
}

impl Latents {
    pub fn bytes(width: usize, pages: usize, page_tokens: usize, half: bool) -> u64 {
        pages as u64 * page_tokens as u64 * width as u64 * if half { 2 } else { 4 }
    }

    pub fn new(
        width: usize,
        pages: usize,
        page_tokens: usize,
        half: bool,
    ) -> Result<Latents, String> {
        let values = Buffer::bytes(Self::bytes(width, pages, page_tokens, half))?;
        Ok(Latents { values, width, page_tokens, half })
    }

    fn index(&self, pages: *const u32, position: usize) -> usize {
        let page = unsafe { *pages.add(position / self.page_tokens) } as usize;
        (page * self.page_tokens + position % self.page_tokens) * self.width
    }

    pub unsafe fn write(&self, pages: *const u32, position: usize, row: *const f32) {
        let at = self.index(pages, position);
        if !self.half {
            core::ptr::copy_nonoverlapping(row, self.values.f32().add(at), self.width);
            return;
        }
        for i in 0..self.width {
            *self.values.u16().add(at + i) = encode_f16(*row.add(i));
        }
    }

    /// Writes `width` values to `to`.
    pub unsafe fn read(&self, pages: *const u32, position: usize, to: *mut f32) {
        let at = self.index(pages, position);
        for i in 0..self.width {
            *to.add(i) = self.value(at + i);
        }
    }

    /// Unpacks positions [start, end) into the storage order of an f32 matrix whose row is a
    /// position: [group of 4][column / 4][row in group][4]. Pads are left alone.
    pub unsafe fn unpack(&self, pages: *const u32, start: usize, end: usize, tile: *mut f32) {
        let stride = self.width.div_ceil(16) * 64;
        for position in start..end {
            let at = self.index(pages, position);
            let row = position - start;
            let to = tile.add(row / 4 * stride + row % 4 * 4);
            let whole = self.width / 4 * 4;
            for i in (0..whole).step_by(4) {
                let value = if self.half {
                    let bits = u32x4_load_extend_u16x4(self.values.u16().add(at + i));
                    f16_lanes(u32x4_shl(bits, 16))
                } else {
                    load(self.values.f32().add(at + i))
                };
                store(to.add(i * 4), value);
            }
            for i in whole..self.width {
                *to.add(whole * 4 + i - whole) = self.value(at + i);
            }
        }
    }

    unsafe fn value(&self, at: usize) -> f32 {
        if self.half {
            decode_f16(*self.values.u16().add(at))
        } else {
            *self.values.f32().add(at)
        }
    }
}
