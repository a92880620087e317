//! The `layerfs` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    layerfs::commands::main(std::env::args_os())
}
