//! The `cellgate` command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A proxy allocates small short-lived objects on many threads, which is what
/// this allocator is made for.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cellgate::cli::run()
}
