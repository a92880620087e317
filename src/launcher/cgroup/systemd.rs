//! Asking systemd for a control group, through busctl(1): the user's own for an ordinary user, the system's for root.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Uid, getuid};

/// A systemd that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    /// That of the system.
    System,
    /// That of the caller, with the directory of its sockets.
    User(PathBuf),
}

/// Where systemd says that it is the one that runs this system (sd_booted(3)).
const BOOTED: &str = "run/systemd/system";

/// Whether this system is run by systemd.
pub(super) fn runs_here(root: &Path) -> bool {
    root.join(BOOTED).is_dir()
}

impl Manager {
    /// The one that the caller may ask; else why there is none.
    pub(super) fn find(root: &Path) -> Result<Self, String> {
        if !runs_here(root) {
            return Err("this system is not run by systemd".to_owned());
        }
        if Uid::effective().is_root() {
            let bus = root.join("run/dbus/system_bus_socket");
            return if bus.exists() {
                Ok(Self::System)
            } else {
                Err(format!("there is no {}", bus.display()))
            };
        }
        let given = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
        let dir = given.map_or_else(|| root.join(format!("run/user/{}", getuid())), PathBuf::from);
        if dir.join("bus").exists() {
            return Ok(Self::User(dir));
        }
        Err(format!("there is no systemd session of this user ({} is missing)", dir.join("bus").display()))
    }

    /// Moves processes into a new scope, which is theirs to divide. systemd does so later, and removes it with its last process.
    pub(super) fn start_scope(&self, name: &str, pids: &[i32], slice: Option<&str>) -> io::Result<()> {
        let mut properties = vec![vec!["PIDs".to_owned(), "au".to_owned(), pids.len().to_string()]];
        properties[0].extend(pids.iter().map(ToString::to_string));
        let property = |name: &str, kind: &str, value: &str| [name, kind, value].map(str::to_owned).to_vec();
        properties.push(property("Delegate", "b", "true"));
        properties.push(property("CollectMode", "s", "inactive-or-failed"));
        properties.push(property("Description", "s", "layerfs container"));
        properties.extend(slice.map(|slice| property("Slice", "s", slice)));
        let mut arguments = vec![name.to_owned(), "fail".to_owned(), properties.len().to_string()];
        arguments.extend(properties.into_iter().flatten());
        // No further units.
        arguments.push("0".to_owned());
        self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", &arguments)
    }

    /// Moves a process into a group below that of a unit.
    pub(super) fn attach(&self, unit: &str, below: &str, pid: i32) -> io::Result<()> {
        let arguments = [unit, below, "1", &pid.to_string()].map(str::to_owned);
        self.call("AttachProcessesToUnit", "ssau", &arguments)
    }

    fn call(&self, method: &str, signature: &str, arguments: &[String]) -> io::Result<()> {
        let mut command = Command::new("busctl");
        match self {
            Self::System => command.arg("--system"),
            Self::User(dir) => command.arg("--user").env("XDG_RUNTIME_DIR", dir),
        };
        command.args(["--timeout=20", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"]);
        command.args(["org.freedesktop.systemd1.Manager", method, signature]).args(arguments);
        let output = command.stdin(Stdio::null()).output().map_err(|error| {
            io::Error::new(error.kind(), format!("busctl, which is a part of systemd: {error}"))
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = OsString::from_vec(output.stderr);
        Err(io::Error::other(format!("systemd: {}", said.to_string_lossy().trim())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_can_be_asked() {
        let root = tempfile::tempdir().unwrap();
        assert!(Manager::find(root.path()).unwrap_err().contains("not run by systemd"));
        std::fs::create_dir_all(root.path().join(BOOTED)).unwrap();
        let why = Manager::find(root.path()).unwrap_err();
        assert!(why.contains("bus"), "{why}");
    }
}
