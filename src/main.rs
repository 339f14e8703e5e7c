//! The `lc` binary: everything is in the library.

use std::process::ExitCode;

/// Batches are allocated on one thread and freed on another: glibc gives such memory back to the kernel at once and takes
/// it again page by page, which cost a fifth of a forwarded packet.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lippycat::cli::main()
}
