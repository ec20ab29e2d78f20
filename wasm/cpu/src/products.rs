//! Matrix products of a step, each set of them one job for all threads.

use crate::dot::{Dot, Q4, Q8};
use crate::formats::{Bf16, Format, Fp8, F16, F32, FP8_HALF_FACTOR};
use crate::integer;
use crate::matmul::{self, Input, Rows, Store};
use crate::matrix::Matrix;
use crate::memory::{pad16, pad4, Buffer};
use crate::threads::Pool;
use core::cell::Cell;

/// Multiplications that are worth a part of a job of their own (a few microseconds).
const PART_PRODUCTS: usize = 40_000;
/// Parts a thread, so that threads of unequal speed end together.
const THREAD_PARTS: usize = 6;
/// Rows whose inputs are prepared in one part.
const ROW_PART: usize = 32;

/// Memory that is handed out piece by piece, and taken back as a whole.
pub struct Arena {
    memory: Buffer,
    bytes: usize,
    used: Cell<usize>,
}

impl Arena {
    pub fn new(bytes: u64) -> Result<Arena, String> {
        let memory = Buffer::bytes(bytes)?;
        Ok(Arena { memory, bytes: bytes as usize, used: Cell::new(0) })
    }

    pub fn clear(&self) {
        self.used.set(0);
    }

    fn take(&self, bytes: usize) -> *mut u8 {
        let start = self.used.get();
        self.used.set(start + bytes.next_multiple_of(16));
        assert!(self.used.get() <= self.bytes, "the arena is as large as any block needs");
        unsafe { self.memory.u8().add(start) }
    }
}

/// What products need besides their operands.
#[derive(Clone, Copy)]
pub struct Scratch<'a> {
    pub pool: &'a Pool,
    pub arena: &'a Arena,
    /// A thread's share: four of the widest inputs, as f32.
    pub panels: *mut f32,
    pub panel_floats: usize,
}

impl Scratch<'_> {
    pub fn panel(&self, thread: usize) -> *mut f32 {
        unsafe { self.panels.add(thread * self.panel_floats) }
    }

    /// Calls `job` with ranges of `rows` rows, a multiple of 4 each but for the last.
    pub fn over_rows(&self, rows: usize, job: impl Fn(usize, usize)) {
        self.pool.run(rows.div_ceil(ROW_PART), &|part, _| {
            job(part * ROW_PART, rows.min((part + 1) * ROW_PART));
        });
    }
}

/// The form in which a weight's kernel takes its input.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Scaled,
    Q8,
    Q4,
}

fn kind(format: Format) -> Kind {
    match format {
        Format::Fp8 => Kind::Scaled,
        Format::Q8 => Kind::Q8,
        Format::Q4 => Kind::Q4,
        _ => Kind::Plain,
    }
}

/// Bytes of the widest form of `rows` rows of `columns`, in the arena.
pub fn input_bytes(rows: usize, columns: usize) -> u64 {
    // q8's rows of whole groups may be wider than f32's of few columns.
    let floats = pad16(columns) * 4;
    (rows * floats.max(integer::row_bytes::<Q8>(columns))) as u64 + 16
}

/// Rows of activations, prepared once for each kind of weight that multiplies them; all weights
/// have as many columns.
pub struct Inputs<'a> {
    scratch: Scratch<'a>,
    rows: Rows,
    count: usize,
    made: [Option<Input>; 4],
    /// The last of `listed` that was packed.
    packed: Option<(Kind, *const u32, Input)>,
}

impl<'a> Inputs<'a> {
    /// All but integer kernels read over whole blocks of 16 columns: see `matmul::pack`.
    pub fn new(scratch: Scratch<'a>, rows: Rows, count: usize) -> Inputs<'a> {
        Inputs { scratch, rows, count, made: [None; 4], packed: None }
    }

    /// All rows, as `weight` takes them.
    pub unsafe fn of(&mut self, weight: &Matrix) -> Input {
        let kind = kind(weight.format);
        let made = self.made[kind as usize];
        made.unwrap_or_else(|| {
            let input = prepare(self.scratch, weight, self.rows, self.count);
            self.made[kind as usize] = Some(input);
            input
        })
    }

    /// The `count` rows that `map` lists (null: all). Gate and up of one expert take the same, one
    /// after the other: they are packed once.
    pub unsafe fn listed(&mut self, weight: &Matrix, count: usize, map: *const u32) -> Input {
        if weight.format.is_grouped() {
            return Input { map, ..self.of(weight) };
        }
        let kind = kind(weight.format);
        match self.packed {
            Some((made, of, input)) if made == kind && of == map => input,
            _ => {
                let input = prepare(self.scratch, weight, self.rows.at(map), count);
                self.packed = Some((kind, map, input));
                input
            }
        }
    }
}

unsafe fn prepare(scratch: Scratch, weight: &Matrix, rows: Rows, count: usize) -> Input {
    let (columns, width) = (weight.columns, weight.blocks * 16);
    let stride = match kind(weight.format) {
        Kind::Plain | Kind::Scaled => width * 4,
        Kind::Q8 => integer::row_bytes::<Q8>(columns),
        Kind::Q4 => integer::row_bytes::<Q4>(columns),
    };
    let start = scratch.arena.take(count * stride);
    scratch.over_rows(count, |from, to| match kind(weight.format) {
        Kind::Plain => matmul::pack(rows, count, (from, to), width, 1.0, start as *mut f32),
        Kind::Scaled => {
            matmul::pack(rows, count, (from, to), width, FP8_HALF_FACTOR, start as *mut f32)
        }
        Kind::Q8 => round_rows::<Q8>(rows, (from, to), columns, start, stride),
        Kind::Q4 => round_rows::<Q4>(rows, (from, to), columns, start, stride),
    });
    Input { start, stride, map: core::ptr::null() }
}

unsafe fn round_rows<D: Dot>(
    rows: Rows,
    (from, to): (usize, usize),
    columns: usize,
    start: *mut u8,
    stride: usize,
) {
    for row in from..to {
        integer::round_row::<D>(rows.row(row), columns, start.add(row * stride));
    }
}

/// outputs = W inputs for `count` rows. Writes outputs [0, rows of W padded to 4).
#[derive(Clone, Copy)]
pub struct Product<'a> {
    pub weight: &'a Matrix,
    pub input: Input,
    pub count: usize,
    pub output: Rows,
    pub how: Store,
}

impl Product<'_> {
    fn groups(&self) -> usize {
        pad4(self.weight.rows) / 4
    }

    fn cost(&self) -> usize {
        self.groups() * self.weight.blocks * 64 * self.count
    }

    unsafe fn range(&self, panel: *mut f32, range: (usize, usize)) {
        let Product { weight, input, count, output, how } = *self;
        match weight.format {
            Format::F32 => {
                matmul::multiply_range::<F32>(weight, input, count, output, how, panel, range)
            }
            Format::F16 => {
                matmul::multiply_range::<F16>(weight, input, count, output, how, panel, range)
            }
            Format::Bf16 => {
                matmul::multiply_range::<Bf16>(weight, input, count, output, how, panel, range)
            }
            Format::Fp8 => {
                matmul::multiply_range::<Fp8>(weight, input, count, output, how, panel, range)
            }
            Format::Q8 => integer::multiply_range::<Q8>(weight, input, count, output, how, range),
            Format::Q4 => integer::multiply_range::<Q4>(weight, input, count, output, how, range),
        }
    }
}

/// Groups of outputs in a part, of which `cost` is computed in all; a multiple of four.
fn part_groups(scratch: Scratch, groups: usize, cost: usize) -> usize {
    let threads = scratch.pool.threads();
    let parts = if threads == 1 { 1 } else { (cost / PART_PRODUCTS).min(threads * THREAD_PARTS) };
    groups.div_ceil(parts.max(1)).next_multiple_of(4)
}

/// Products whose outputs are apart.
pub unsafe fn side_by_side(scratch: Scratch, products: &[Product]) {
    let cost = products.iter().map(Product::cost).sum::<usize>();
    let groups = products.iter().map(Product::groups).sum();
    let step = part_groups(scratch, groups, cost);
    let parts = products.iter().map(|product| product.groups().div_ceil(step)).sum();
    scratch.pool.run(parts, &|mut part, thread| {
        for product in products {
            let parts = product.groups().div_ceil(step);
            if part < parts {
                let range = (part * step, product.groups().min((part + 1) * step));
                return product.range(scratch.panel(thread), range);
            }
            part -= parts;
        }
    });
}

/// Products that add to the same outputs, in their order. All weights have as many rows.
pub unsafe fn stacked(scratch: Scratch, products: &[Product]) {
    let Some(first) = products.first() else { return };
    let cost = products.iter().map(Product::cost).sum::<usize>();
    let groups = first.groups();
    let step = part_groups(scratch, groups, cost);
    scratch.pool.run(groups.div_ceil(step), &|part, thread| {
        for product in products {
            let range = (part * step, groups.min((part + 1) * step));
            product.range(scratch.panel(thread), range);
        }
    });
}

/// One product with an f32 weight, on the calling thread. `packed`: memory for the inputs.
pub unsafe fn alone(weight: &Matrix, rows: Rows, count: usize, output: Rows, packed: *mut f32) {
    let width = weight.blocks * 16;
    matmul::pack(rows, count, (0, count), width, 1.0, packed);
    let input = Input { start: packed as *const u8, stride: width * 4, map: core::ptr::null() };
    // An f32 matrix is read where it lies: no panel.
    let range = (0, pad4(weight.rows) / 4);
    let panel = core::ptr::null_mut();
    matmul::multiply_range::<F32>(weight, input, count, output, Store::Assign, panel, range);
}
