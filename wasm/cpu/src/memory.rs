//! Zeroed, 16-byte aligned memory that is allocated once and then used through pointers.

#[repr(C, align(16))]
#[derive(Clone, Copy)]
struct Lane([u8; 16]);

/// Owns `bytes` bytes; the pointer stays valid and in place for the buffer's life.
pub struct Buffer {
    _lanes: Vec<Lane>,
    start: *mut u8,
}

/// Bytes that a buffer really takes.
pub fn rounded(bytes: u64) -> u64 {
    bytes.div_ceil(16) * 16
}

impl Buffer {
    pub fn bytes(bytes: u64) -> Result<Buffer, String> {
        let count = usize::try_from(bytes.div_ceil(16)).unwrap_or(usize::MAX);
        let mut lanes = Vec::new();
        lanes
            .try_reserve_exact(count)
            .map_err(|_| format!("allocate {bytes} bytes of WebAssembly memory: none left"))?;
        lanes.resize(count, Lane([0; 16]));
        let start = lanes.as_mut_ptr() as *mut u8;
        Ok(Buffer { _lanes: lanes, start })
    }

    pub fn floats(count: u64) -> Result<Buffer, String> {
        Buffer::bytes(count * 4)
    }

    /// A copy of `values`, followed by zeros up to `count`.
    pub fn from_slice(values: &[f32], count: usize) -> Result<Buffer, String> {
        let buffer = Buffer::floats(count as u64)?;
        unsafe { core::ptr::copy_nonoverlapping(values.as_ptr(), buffer.f32(), values.len()) };
        Ok(buffer)
    }

    pub fn f32(&self) -> *mut f32 {
        self.start as *mut f32
    }

    pub fn u16(&self) -> *mut u16 {
        self.start as *mut u16
    }

    pub fn u8(&self) -> *mut u8 {
        self.start
    }
}

pub fn pad4(count: usize) -> usize {
    count.div_ceil(4) * 4
}

pub fn pad16(count: usize) -> usize {
    count.div_ceil(16) * 16
}
