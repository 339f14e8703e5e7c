//! The `lc` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    lippycat::cli::main()
}
