//! Real programs at work in a mount, all at once: `scripts/stress --quick`.

use std::path::Path;
use std::process::Command;

use crate::support::*;

/// A minute when the machine is idle.
const SECONDS_MAX: &str = "600";

#[test]
fn programs_leave_what_they_leave_on_ext4() {
    needs_mount!();
    if !is_root() {
        skip!("scripts/stress is for root: it mounts file systems");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/stress");
    let mut command = Command::new("timeout");
    command.args(["-k", "10", SECONDS_MAX]).arg(script).args(["--quick", "tmpfs"]);
    let output = command.env("LAYERFS_BIN", layerfs_path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
