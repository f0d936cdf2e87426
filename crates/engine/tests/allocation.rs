//! A generated token allocates nothing, once buffers have their size.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity, unsafe_code)]

use blackletter_engine::{Engine, LoadOptions, Runner, WeightDtype};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is passed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// One test in this file: others would run beside it and be counted.
#[test]
fn a_token_after_the_first_ones_allocates_nothing() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gqa-window");
    for dtype in [None, Some(WeightDtype::Bf16), Some(WeightDtype::Q8), Some(WeightDtype::Q4)] {
        for batch in [1, 3] {
            let engine = Engine::load(&dir, &LoadOptions { dtype, threads: Some(2) }).unwrap();
            let context = engine.config().max_position_embeddings;
            let mut runner = Runner::new(&engine);
            let mut first = runner.start();
            runner.prefill(&mut first, &[5, 6, 7]).unwrap();
            let mut owned: Vec<_> = (0..batch).map(|_| runner.fork(&first)).collect();
            runner.finish(first);
            let mut sequences: Vec<_> = owned.iter_mut().collect();
            let mut step = |token: u32| {
                let ids = [token, token + 1, token + 2];
                runner.decode(&mut sequences, &ids[..batch]).unwrap();
            };
            // Past the window and over several pages, where pages are given back and taken again.
            let warm = (context - 3) / 2;
            (0..warm).for_each(|i| step(8 + (i % 100) as u32));
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            (warm..context - 4).for_each(|i| step(8 + (i % 100) as u32));
            let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
            assert_eq!(made, 0, "{dtype:?}, {batch} sequences: {made} in {} tokens", context - 4 - warm);
        }
    }
}
