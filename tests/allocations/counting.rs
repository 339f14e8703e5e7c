//! The program's allocator, counting: how often did this thread ask for memory?

#![expect(unsafe_code, reason = "a global allocator cannot be written without; it is in no shipped program")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

thread_local! {
    // without a destructor and with a constant start: reading it never allocates
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what it hands on.
pub(crate) struct Counting<A>(pub(crate) A);

/// Allocations made by `work` on this thread; a grown buffer counts.
pub(crate) fn during(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: everything is handed to the other allocator as it came, and what it answers is handed back.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises about `layout` are those the other allocator asks for.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `place` came from the other allocator with this layout, since all three above come from there.
        unsafe { self.0.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(place, layout) }
    }
}
