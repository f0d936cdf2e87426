//! A small thread pool for steps of tens of microseconds.
//!
//! A token is some hundred parallel sections, each over in 20–500 µs. Threads that sleep between them cost
//! more than the work, threads that spin for ever waste a core: so a worker spins for a short while after a
//! section and then parks. `rayon` does neither of the two at this grain, which is why this is ours.

use std::{
    any::Any,
    cell::UnsafeCell,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

/// How long a worker polls for the next section before it sleeps, in polls of about 20–40 ns: some 100 µs.
const SPINS: u32 = 3_000;

type Job<'a> = dyn Fn(usize) + Sync + 'a;

struct Shared {
    /// Counts sections; a worker runs when it moves.
    epoch: AtomicU64,
    /// Workers that have yet to finish the current section.
    running: AtomicUsize,
    /// The current section's closure; valid while `running` is not zero.
    job: UnsafeCell<Option<*const Job<'static>>>,
    /// Which workers sleep and must be woken.
    parked: Vec<AtomicBool>,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only by the owner of the pool's `run` lock while no worker runs, and read by
// workers only after they saw the epoch move (release/acquire on `epoch`).
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer inside is to a `Sync` closure that outlives its use (see `Pool::run`).
unsafe impl Send for Shared {}

/// Worker threads that run one closure at a time, all together.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One section at a time.
    lock: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads, the calling one included (at least 1).
    pub fn new(threads: usize) -> Self {
        let extra = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            parked: (0..extra).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let workers = (0..extra)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                let name = format!("blackletter-{}", index + 1);
                // A machine that refuses another thread gets a smaller pool, not a failure.
                thread::Builder::new().name(name).spawn(move || work(&shared, index)).ok()
            })
            .collect();
        Self { shared, workers, lock: Mutex::new(()) }
    }

    /// How many threads take part, the calling one included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(thread)` once on every thread (`0..threads()`, the caller being 0) and waits for all.
    ///
    /// A panic in any of them is raised again here, after all have finished.
    pub fn run(&self, job: impl Fn(usize) + Sync) {
        if self.workers.is_empty() {
            return job(0);
        }
        let _guard = self.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let shared = &*self.shared;
        let wide: &Job<'_> = &job;
        // SAFETY: only the lifetime is widened. Workers use the pointer solely between the epoch's step below and
        // their decrement of `running`; this function returns after `running` is zero, so `job` outlives all use.
        let wide = unsafe { std::mem::transmute::<&Job<'_>, *const Job<'static>>(wide) };
        // SAFETY: no worker reads `job` now: the last section ended with `running` at zero.
        unsafe { *shared.job.get() = Some(wide) };
        shared.running.store(self.workers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (worker, parked) in self.workers.iter().zip(&shared.parked) {
            if parked.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        let mine = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut polls = 0u32;
        while shared.running.load(Ordering::Acquire) != 0 {
            polls = polls.wrapping_add(1);
            // A worker may have lost its core to another process: then let it have this one.
            if polls.is_multiple_of(SPINS) { thread::yield_now() } else { std::hint::spin_loop() }
        }
        let theirs = shared.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(payload) = mine.err().or(theirs) {
            resume_unwind(payload);
        }
    }

    /// Runs `body(thread, range)` over `0..items` cut into ranges whose starts are multiples of `grain`.
    ///
    /// Threads take large ranges first and small ones last, so that they finish together even when one is
    /// slowed down. Which thread takes what differs from run to run: `body` must not care.
    pub fn for_ranges(&self, items: usize, grain: usize, body: impl Fn(usize, Range<usize>) + Sync) {
        let grain = grain.max(1);
        let threads = self.threads();
        if items <= grain || threads == 1 {
            if items > 0 {
                body(0, 0..items);
            }
            return;
        }
        let next = AtomicUsize::new(0);
        self.run(|thread| {
            loop {
                let start = next.load(Ordering::Relaxed);
                if start >= items {
                    return;
                }
                let share = (items - start) / (2 * threads);
                let take = (share / grain).max(1) * grain;
                let end = (start + take).min(items);
                if next.compare_exchange_weak(start, end, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                    body(thread, start..end);
                }
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker never ends by panic: its closure's panics are caught.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut polls = 0u32;
        while shared.epoch.load(Ordering::Acquire) == seen {
            polls += 1;
            if polls < SPINS {
                std::hint::spin_loop();
                continue;
            }
            // SeqCst on the flag and the epoch: either the caller sees the flag and wakes this thread, or this
            // thread sees the new epoch and does not sleep.
            shared.parked[index].store(true, Ordering::SeqCst);
            while shared.epoch.load(Ordering::SeqCst) == seen {
                thread::park();
            }
            shared.parked[index].store(false, Ordering::SeqCst);
        }
        seen = shared.epoch.load(Ordering::Acquire);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: written before the epoch moved, which this thread has seen, and alive until `running` falls.
        let job = unsafe { *shared.job.get() };
        if let Some(job) = job {
            // SAFETY: as above; the closure is `Sync`.
            let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(index + 1) }));
            if let Err(payload) = outcome {
                *shared.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(payload);
            }
        }
        shared.running.fetch_sub(1, Ordering::Release);
    }
}

/// A raw pointer that several threads may write through, each to its own elements.
pub(crate) struct SharedMut<T>(*mut T);

impl<T> Clone for SharedMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedMut<T> {}

// SAFETY: users write disjoint elements only; each use says why.
unsafe impl<T: Send> Sync for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedMut<T> {}

impl<T> SharedMut<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// # Safety
    /// `start..start + len` is inside the slice, and no other thread touches it meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice<'a>(self, start: usize, len: usize) -> &'a mut [T] {
        std::slice::from_raw_parts_mut(self.0.add(start), len)
    }

    /// A pointer to element `start`, for writes with gaps that other threads fill: no slice may cover those.
    ///
    /// # Safety
    /// `start` is inside the slice; what is written through the pointer is, too, and no other thread touches it meanwhile.
    pub(crate) unsafe fn at(self, start: usize) -> *mut T {
        self.0.add(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_visited_once_whatever_the_threads_and_grain() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads);
            for (items, grain) in [(0, 1), (1, 1), (7, 3), (1000, 16), (1001, 1), (64, 64), (65, 64)] {
                let seen: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                pool.for_ranges(items, grain, |_, range| {
                    assert_eq!(range.start % grain, 0);
                    for i in range {
                        seen[i].fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} {items} {grain}");
            }
        }
    }

    #[test]
    fn workers_wake_up_after_they_have_slept() {
        let pool = Pool::new(3);
        let count = AtomicUsize::new(0);
        for _ in 0..20 {
            thread::sleep(std::time::Duration::from_millis(2));
            pool.run(|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(count.load(Ordering::Relaxed), 60);
    }

    #[test]
    fn a_panic_in_a_worker_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        let caught =
            catch_unwind(AssertUnwindSafe(|| pool.run(|thread| assert!(thread == 0, "worker fails"))));
        assert!(caught.is_err());
        let count = AtomicUsize::new(0);
        pool.run(|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
