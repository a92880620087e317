//! Who makes a container.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use rustix::fs::Access;

use crate::container::Wishes;
use crate::launcher::UserNamespace;

/// `--runtime`
#[derive(Clone, Debug, Default, Args)]
pub struct RuntimeArg {
    /// An OCI runtime of the host that makes the container from the mounted image, instead of layerfs: crun, runc, or the path of
    /// one
    #[arg(long, value_name = "NAME|PATH")]
    pub runtime: Option<PathBuf>,
}

impl RuntimeArg {
    /// Adds what is wished for.
    pub(in crate::commands) fn add_to(&self, wishes: &mut Wishes) -> anyhow::Result<()> {
        let Some(wanted) = &self.runtime else { return Ok(()) };
        let name = wanted.display();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = find(wanted, &path).with_context(|| {
            format!("--runtime {name}: no such program: install it, or leave the option out")
        })?;
        ensure!(
            !wishes.init,
            "--init and --runtime {name} contradict each other: its first process is the program; leave one out"
        );
        ensure!(
            wishes.user_namespace == UserNamespace::default(),
            "--runtime {name}: only with the user namespace that every container has: leave out --userns, --uidmap and \
             --gidmap"
        );
        let is_crun = found.to_string_lossy().contains("crun");
        let limit = wishes.resources.needs_cgroup().filter(|_| !is_crun);
        ensure!(
            limit.is_none(),
            "{} and --runtime {name}: only crun leaves a container in the control group that has its limits",
            limit.unwrap_or_default()
        );
        wishes.runtime = Some(found);
        Ok(())
    }
}

/// Where programs of the system are that need not be in an ordinary user's `PATH`.
const FURTHER: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin"];

/// The absolute path of a program.
fn find(wanted: &Path, path: &std::ffi::OsStr) -> Option<OsString> {
    let runs = |path: &PathBuf| path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok();
    if wanted.components().count() > 1 || wanted.has_root() {
        return std::path::absolute(wanted).ok().filter(runs).map(Into::into);
    }
    let directories = std::env::split_paths(path).chain(FURTHER.iter().map(PathBuf::from));
    directories.filter(|dir| dir.is_absolute()).map(|dir| dir.join(wanted)).find(runs).map(Into::into)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn programs_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("some-oci-runtime");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        let (name, path) = (Path::new("some-oci-runtime"), dir.path().as_os_str());
        assert_eq!(find(name, path), None, "it cannot be executed");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(name, path).as_deref(), Some(program.as_os_str()));
        assert_eq!(find(&program, "".as_ref()).as_deref(), Some(program.as_os_str()));
        assert_eq!(find(name, "".as_ref()), None);
        assert_eq!(find(dir.path(), "".as_ref()), None);
        assert_eq!(find(Path::new("./some-oci-runtime"), path), None);
    }
}
