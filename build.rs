//! Makes the default filters of system calls ahead, for the machine that this is built for: see `src/launcher/seccomp/table.rs`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use launcher::capabilities::Capabilities;
use launcher::seccomp::table::{Users, filter};
use sys::seccomp::Architecture;

#[path = "src/sys"]
#[allow(
    dead_code,
    unsafe_code,
    unreachable_pub,
    reason = "of what the library has only little is needed here"
)]
mod sys {
    pub mod seccomp;
    pub mod syscall_numbers;
}

#[path = "src/launcher"]
#[allow(dead_code, unreachable_pub, reason = "of what the library has only little is needed here")]
mod launcher {
    pub mod capabilities;
    pub mod syscall_filter;
    pub mod seccomp {
        pub mod table;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let name = env::var("CARGO_CFG_TARGET_ARCH")?;
    let architecture = match name.as_str() {
        "x86_64" => Architecture::X86_64,
        "aarch64" => Architecture::Aarch64,
        "riscv64" => Architecture::Riscv64,
        // The library says itself that it cannot be built for others.
        _ => Architecture::OWN,
    };
    let mut text = String::new();
    for (name, users) in [("OWN", Users::Own), ("CALLERS", Users::Callers)] {
        writeln!(
            text,
            "/// For [`super::Users`] of that name.\npub(super) static {name}: &[Instruction] = &["
        )?;
        for one in filter(architecture, Capabilities::DEFAULT, users)? {
            writeln!(
                text,
                "Instruction {{ code: {}, jt: {}, jf: {}, k: {} }},",
                one.code, one.jt, one.jf, one.k
            )?;
        }
        writeln!(text, "];")?;
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("default_filters.rs"), text)?;
    for path in [
        "build.rs",
        "src/launcher/capabilities.rs",
        "src/launcher/seccomp",
        "src/launcher/syscall_filter.rs",
        "src/sys/seccomp.rs",
        "src/sys/syscall_numbers",
        "src/sys/syscall_numbers.rs",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    Ok(())
}
