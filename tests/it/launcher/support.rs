//! A root filesystem, and the `launch` example to run commands in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The ordinary user that `scripts/test` makes, with ranges in /etc/subuid and /etc/subgid.
const USER: &str = "layerfs-test";

/// As whom a container is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Root,
    Ranges,
    SingleId,
}

/// All of them.
pub(crate) const CALLERS: [Caller; 3] = [Caller::Root, Caller::Ranges, Caller::SingleId];

/// A root filesystem that goes away with this.
pub(crate) struct Rootfs {
    directory: tempfile::TempDir,
    caller: Caller,
}

impl Rootfs {
    pub(crate) fn new(caller: Caller) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = directory.path().join("root");
        for name in ["bin", "etc", "tmp", "run", "root"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        copy(Path::new("/bin/busybox"), &root.join("bin/busybox"));
        for name in
            ["sh", "id", "cat", "grep", "ls", "mount", "umount", "unshare", "touch", "sleep", "env", "pwd"]
        {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\nlog:x:50:web\n").unwrap();
        copy(launch(), &directory.path().join("launch"));
        // Where `launch` makes its mount point, which stays behind when it is killed.
        fs::create_dir(directory.path().join("tmp")).unwrap();
        fs::set_permissions(directory.path().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        let rootfs = Self { directory, caller };
        if caller != Caller::Root {
            let status = Command::new("chown").args(["-R", USER]).arg(rootfs.path()).status().unwrap();
            assert!(status.success());
        }
        rootfs
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// `launch`, as the caller, with these options.
    pub(crate) fn command(&self, options: &[&str], program: &[&str]) -> Command {
        let launch = self.directory.path().join("launch");
        let mut command = if self.caller == Caller::Root {
            Command::new(launch)
        } else {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", USER, "--regid", USER, "--init-groups"]).arg(launch);
            command
        };
        if self.caller == Caller::SingleId {
            command.arg("--single");
        }
        command.env("TMPDIR", self.directory.path().join("tmp"));
        command.current_dir("/").args(options).arg(self.path()).args(program).stdin(Stdio::null());
        command
    }

    pub(crate) fn output(&self, options: &[&str], program: &[&str]) -> Output {
        self.command(options, program).output().unwrap()
    }

    /// Standard output of a shell script that must succeed.
    pub(crate) fn shell(&self, options: &[&str], script: &str) -> String {
        let output = self.output(options, &["sh", "-ec", script]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{:?}: {script}: {said}", self.caller);
        String::from_utf8(output.stdout).unwrap()
    }
}

/// By another process: a program that any process still has open for writing cannot be executed, and every child that
/// another test starts at this moment would hold our descriptor for a while.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success());
}

/// The example, brought up to date at the first use: cargo builds examples only when all targets are tested.
fn launch() -> &'static Path {
    static LAUNCH: OnceLock<PathBuf> = OnceLock::new();
    LAUNCH.get_or_init(|| {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--example", "launch"])
            .args(if cfg!(debug_assertions) { None } else { Some("--release") })
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(status.success());
        let test = std::env::current_exe().unwrap();
        test.ancestors().nth(2).unwrap().join("examples/launch")
    })
}
