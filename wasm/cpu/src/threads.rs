//! Several threads for one piece of work.
//!
//! The thread that owns the device cuts a job into parts, and whoever is free takes the next one: a
//! helper that comes late, or that the system has put aside, holds nobody up. No result depends on
//! who computes a part.

use core::arch::wasm32::{memory_atomic_notify, memory_atomic_wait32};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};

/// Looks that a helper takes for work before it sleeps: about 0.1 ms, longer than the gaps within a
/// step.
const IDLE_SPINS: u32 = 100_000;
/// A sleeping helper returns to its event loop after this long, so that its Worker can be ended.
const SLEEP_NS: i64 = 100_000_000;
/// Looks at the last parts before the owner sleeps in between.
const DONE_SPINS: u32 = 20_000;
const DONE_SLEEP_NS: i64 = 1_000_000;
/// Sleeps after which a helper is taken for dead: 5 s.
const DONE_SLEEPS: u32 = 5_000;

type Job<'a> = dyn Fn(usize, usize) + 'a;

/// A value that shares its cache line with nothing.
#[repr(align(64))]
struct Apart<T>(T);

pub struct Pool {
    /// Parts of the job in the upper half, the next one to be taken in the lower.
    ticket: Apart<AtomicU64>,
    /// Parts that are finished.
    done: Apart<AtomicU32>,
    /// Whether the owner sleeps until all are.
    owner_sleeps: AtomicBool,
    /// Changes when sleepers have to look again.
    wake: AtomicU32,
    sleepers: AtomicU32,
    helpers: AtomicU32,
    stopped: AtomicBool,
    job: UnsafeCell<*const Job<'static>>,
}

/// `job` is written only while no part of it is held.
unsafe impl Sync for Pool {}
unsafe impl Send for Pool {}

impl Pool {
    pub fn new() -> Pool {
        const NOTHING: &Job<'static> = &|_, _| {};
        Pool {
            ticket: Apart(AtomicU64::new(0)),
            done: Apart(AtomicU32::new(0)),
            owner_sleeps: AtomicBool::new(false),
            wake: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            helpers: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            job: UnsafeCell::new(NOTHING),
        }
    }

    /// Threads that work on a job: the owner and its helpers.
    pub fn threads(&self) -> usize {
        self.helpers() + 1
    }

    pub fn helpers(&self) -> usize {
        self.helpers.load(Acquire) as usize
    }

    /// Calls `job` with every part below `parts` and the number of the thread that runs it (the
    /// owner's is 0); returns when all have run. Only for the owner, who runs part 0.
    pub fn run(&self, parts: usize, job: &Job) {
        if parts <= 1 || self.helpers() == 0 {
            (0..parts).for_each(|part| job(part, 0));
            return;
        }
        unsafe { *self.job.get() = core::mem::transmute::<&Job, &'static Job<'static>>(job) };
        self.done.0.store(0, Relaxed);
        self.ticket.0.store((parts as u64) << 32 | 1, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            self.wake_all();
        }
        job(0, 0);
        self.done.0.fetch_add(1, AcqRel);
        self.work(0);
        self.await_parts(parts as u32);
    }

    /// Takes parts until none is left.
    fn work(&self, thread: usize) -> bool {
        let mut worked = false;
        while self.is_work_left() {
            let ticket = self.ticket.0.fetch_add(1, AcqRel);
            let (parts, part) = ((ticket >> 32) as usize, ticket as u32 as usize);
            if part < parts {
                // The job stays the same while this part is not done.
                unsafe { (**self.job.get())(part, thread) };
                self.done.0.fetch_add(1, SeqCst);
                if self.owner_sleeps.load(SeqCst) {
                    unsafe { memory_atomic_notify(self.done.0.as_ptr() as *mut i32, 1) };
                }
                worked = true;
            }
        }
        worked
    }

    fn is_work_left(&self) -> bool {
        let ticket = self.ticket.0.load(SeqCst);
        (ticket as u32 as u64) < ticket >> 32
    }

    fn await_parts(&self, parts: u32) {
        let mut spins = 0;
        let mut sleeps = 0;
        loop {
            let done = self.done.0.load(Acquire);
            if done == parts {
                return;
            }
            spins += 1;
            if spins > DONE_SPINS {
                let address = self.done.0.as_ptr() as *mut i32;
                self.owner_sleeps.store(true, SeqCst);
                unsafe { memory_atomic_wait32(address, done as i32, DONE_SLEEP_NS) };
                self.owner_sleeps.store(false, SeqCst);
                sleeps += 1;
                assert!(sleeps < DONE_SLEEPS, "a helper thread of the cpu device has died");
            }
        }
    }

    fn wake_all(&self) {
        self.wake.fetch_add(1, SeqCst);
        unsafe { memory_atomic_notify(self.wake.as_ptr() as *mut i32, u32::MAX) };
    }

    pub fn attach(&self) {
        self.helpers.fetch_add(1, AcqRel);
    }

    pub fn detach(&self) {
        self.helpers.fetch_sub(1, AcqRel);
    }

    /// A helper's life: works as thread `thread`. Returns true when it has slept for a while and is
    /// to be called again, false when the pool is stopped.
    pub fn help(&self, thread: usize) -> bool {
        let mut spins = 0;
        while !self.stopped.load(Acquire) {
            spins = if self.work(thread) { 0 } else { spins + 1 };
            if spins > IDLE_SPINS && self.sleep() {
                return true;
            }
        }
        false
    }

    /// Whether nothing came for the whole time.
    fn sleep(&self) -> bool {
        self.sleepers.fetch_add(1, SeqCst);
        let seen = self.wake.load(SeqCst);
        let mut outcome = 0;
        if !self.is_work_left() && !self.stopped.load(SeqCst) {
            let address = self.wake.as_ptr() as *mut i32;
            outcome = unsafe { memory_atomic_wait32(address, seen as i32, SLEEP_NS) };
        }
        self.sleepers.fetch_sub(1, SeqCst);
        outcome == 2
    }

    /// Tells all helpers to leave.
    pub fn stop(&self) {
        self.stopped.store(true, SeqCst);
        self.wake_all();
    }
}
