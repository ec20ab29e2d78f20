//! Number formats, and how sixteen stored weights become four vectors of f32.

use core::arch::wasm32::*;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Format {
    F32,
    F16,
    Bf16,
    Fp8,
    Q8,
    Q4,
}

/// Columns that share a scale in q8 and q4, and in activations that are rounded to integers.
pub const GROUP: usize = 32;

impl Format {
    pub fn from_code(code: u32) -> Format {
        const ALL: [Format; 6] =
            [Format::F32, Format::F16, Format::Bf16, Format::Fp8, Format::Q8, Format::Q4];
        ALL[code as usize]
    }

    pub fn bits(self) -> usize {
        match self {
            Format::F32 => 32,
            Format::F16 | Format::Bf16 => 16,
            Format::Fp8 | Format::Q8 => 8,
            Format::Q4 => 4,
        }
    }

    /// Whether integers are stored in groups of 32 columns, each with a scale.
    pub fn is_grouped(self) -> bool {
        matches!(self, Format::Q8 | Format::Q4)
    }

    /// `columns` rounded up to what is stored.
    pub fn padded(self, columns: usize) -> usize {
        columns.next_multiple_of(if self.is_grouped() { GROUP } else { 16 })
    }

    /// Where element `i` of the sixteen of output `o` is stored in a block of 4 outputs by 16
    /// columns, in elements: the order that makes `Decode::block` hand out elements 0..4, 4..8,
    /// 8..12, 12..16. f32, q8 and q4 are interleaved by fours: [column / 4][output][4]; of q4,
    /// bytes 16 b..16 b + 16 hold the elements 32 b..32 b + 16 in their low halves.
    pub fn position(self, o: usize, i: usize) -> usize {
        match self {
            Format::F32 | Format::Q8 | Format::Q4 => (i & 12) << 2 | o << 2 | i & 3,
            Format::F16 | Format::Bf16 => o << 4 | i & 8 | (i & 3) << 1 | i >> 2 & 1,
            Format::Fp8 => o << 4 | (i & 3) << 2 | i >> 2,
        }
    }
}

pub fn decode_f16(bits: u16) -> f32 {
    let magnitude = (bits & 0x7fff) as u32;
    let value = if magnitude >= 0x7c00 {
        f32::from_bits(0x7f80_0000 | (magnitude << 13))
    } else {
        f32::from_bits(magnitude << 13) * F16_FACTOR
    };
    f32::from_bits(value.to_bits() | ((bits as u32 & 0x8000) << 16))
}

/// Nearest f16, ties to even; too large becomes infinity.
pub fn encode_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00; // 65520 and above
    }
    if magnitude < 0x3880_0000 {
        // Below 2^-14: adding 0.5 leaves the value in units of 2^-24 in the low bits, rounded.
        let shifted = f32::from_bits(magnitude) + 0.5;
        return sign | (shifted.to_bits() - 0x3f00_0000) as u16;
    }
    let rounded = magnitude + 0x0fff + (magnitude >> 13 & 1);
    sign | ((rounded - (112 << 23)) >> 13) as u16
}

pub fn decode_bf16(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

pub fn decode_e4m3(bits: u8) -> f32 {
    if bits & 0x7f == 0x7f {
        return f32::NAN;
    }
    let value = f32::from_bits((bits as u32 & 0x7f) << 20) * FP8_FACTOR;
    f32::from_bits(value.to_bits() | ((bits as u32 & 0x80) << 24))
}

/// 2^112: f16 bits moved into f32's fields give the value times 2^-112.
const F16_FACTOR: f32 = f32::from_bits((112 + 127) << 23);
/// 2^120: e4m3 bits moved into f32's fields give the value times 2^-120.
const FP8_FACTOR: f32 = f32::from_bits((120 + 127) << 23);
/// 2^60: what an fp8 kernel's inputs and its scales are multiplied by; together they undo the
/// 2^-120, and neither the inputs nor the sums come near the ends of f32's range.
pub const FP8_HALF_FACTOR: f32 = f32::from_bits((60 + 127) << 23);

/// The upper halves of 32-bit lanes, and fp8's fields in 16-bit lanes. Read through volatile
/// memory, because a constant that the compiler knows is made anew inside the loop.
#[inline(always)]
fn hidden_masks() -> [v128; 2] {
    static MASKS: [u32; 2] = [0xffff_0000, 0x87f0_87f0];
    MASKS.each_ref().map(|mask| u32x4_splat(unsafe { core::ptr::read_volatile(mask) }))
}

/// Reads sixteen weights of one output.
pub trait Decode {
    /// Bytes of sixteen weights.
    const BLOCK_BYTES: usize;
    /// From one output's weights of a block to the next output's.
    const OUTPUT_BYTES: usize = Self::BLOCK_BYTES;
    /// Whether sums are scaled per segment of columns.
    const SCALED: bool;
    /// Elements 0..4, 4..8, 8..12, 12..16 (fp8: times 2^-120; NaN codes are left to the scales).
    unsafe fn block(from: *const u8, masks: [v128; 2]) -> [v128; 4];
    /// The constants of `block`, fetched once before a loop.
    #[inline(always)]
    fn masks() -> [v128; 2] {
        [u16x8_splat(0); 2]
    }
}

pub struct F32;
pub struct F16;
pub struct Bf16;
pub struct Fp8;

impl Decode for F32 {
    const BLOCK_BYTES: usize = 64;
    /// f32 blocks of four outputs are interleaved by vectors.
    const OUTPUT_BYTES: usize = 16;
    const SCALED: bool = false;
    #[inline(always)]
    unsafe fn block(from: *const u8, _masks: [v128; 2]) -> [v128; 4] {
        let from = from as *const v128;
        [v128_load(from), v128_load(from.add(4)), v128_load(from.add(8)), v128_load(from.add(12))]
    }
}

impl Decode for Bf16 {
    const BLOCK_BYTES: usize = 32;
    const SCALED: bool = false;
    #[inline(always)]
    fn masks() -> [v128; 2] {
        hidden_masks()
    }
    #[inline(always)]
    unsafe fn block(from: *const u8, masks: [v128; 2]) -> [v128; 4] {
        let from = from as *const v128;
        let (a, b) = (v128_load(from), v128_load(from.add(1)));
        let high = masks[0];
        [u32x4_shl(a, 16), v128_and(a, high), u32x4_shl(b, 16), v128_and(b, high)]
    }
}

impl Decode for F16 {
    const BLOCK_BYTES: usize = 32;
    const SCALED: bool = false;
    #[inline(always)]
    unsafe fn block(from: *const u8, _masks: [v128; 2]) -> [v128; 4] {
        let from = from as *const v128;
        let (a, b) = (v128_load(from), v128_load(from.add(1)));
        let low = |x| f16_lanes(u32x4_shl(x, 16));
        [low(a), f16_lanes(a), low(b), f16_lanes(b)]
    }
}

/// Four f16 in the upper halves of the lanes to f32; the lower halves are ignored.
#[inline(always)]
pub fn f16_lanes(x: v128) -> v128 {
    let moved = v128_and(i32x4_shr(x, 3), u32x4_splat(0x8fff_e000));
    let value = f32x4_mul(moved, f32x4_splat(F16_FACTOR));
    let magnitude = v128_and(moved, u32x4_splat(0x0fff_e000));
    let special = u32x4_ge(magnitude, u32x4_splat(0x0f80_0000));
    v128_or(value, v128_and(special, u32x4_splat(0x7f80_0000)))
}

impl Decode for Fp8 {
    const BLOCK_BYTES: usize = 16;
    const SCALED: bool = true;
    #[inline(always)]
    fn masks() -> [v128; 2] {
        hidden_masks()
    }
    #[inline(always)]
    unsafe fn block(from: *const u8, masks: [v128; 2]) -> [v128; 4] {
        let x = v128_load(from as *const v128);
        // In 16-bit lanes: s eeee mmm ........ -> s 0000 eeee mmm 0000, the upper half of an f32.
        let mask = masks[1];
        let odd = v128_and(i16x8_shr(x, 4), mask);
        let even = v128_and(i16x8_shr(i16x8_shl(x, 8), 4), mask);
        let high = masks[0];
        [u32x4_shl(even, 16), u32x4_shl(odd, 16), v128_and(even, high), v128_and(odd, high)]
    }
}
