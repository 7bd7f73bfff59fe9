//! The command line of `soprano-export`.

use std::process::ExitCode;

fn main() -> ExitCode {
    soprano_export::cli::main()
}
