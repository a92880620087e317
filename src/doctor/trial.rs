//! The whole of it: an empty container, started as `run` starts one.

use std::io;
use std::os::fd::{AsFd as _, RawFd};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;
use serde::{Deserialize, Serialize};

use super::{Check, child};
use crate::launcher::{self, EXIT_NOT_FOUND, Events, Plan, Rootfs};
use crate::sys::fuse_mount;
use crate::sys::mount_attributes::{attach, new_filesystem};

/// What its check is called.
pub(super) const NAME: &str = "run";
/// What no empty container has.
const PROGRAM: &str = "/layerfs-doctor";

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    /// Why it does not work, if so.
    failed: Option<String>,
    /// Why there is one id only, if so.
    single: Option<String>,
}

/// Starts an empty container, whose program is not there: everything before that has to work.
pub(super) fn run(store: &Path) -> Check {
    let target = mount_point(store);
    let told = child::ask(|| {
        let told = started(target);
        serde_json::to_string(&told).unwrap_or_default()
    });
    match told.and_then(|text| serde_json::from_str(&text).map_err(io::Error::other)) {
        Ok(told) => check(told),
        Err(error) => check(Told { failed: Some(error.to_string()), single: None }),
    }
}

fn check(told: Told) -> Check {
    match told {
        Told { failed: Some(reason), .. } => {
            let fix = "do what stands above; layerfs run will say the same";
            Check::missing(NAME, format!("containers cannot be started: {reason}"), fix)
        }
        Told { single: Some(reason), .. } => {
            let reason = reason.split(" (an administrator").next().unwrap_or(&reason);
            let says = format!("an empty container starts, with only one user id inside: {reason}");
            Check::warning(NAME, says, "see ids, newuidmap and no_new_privs above")
        }
        Told { .. } => Check::ok(NAME, "an empty container starts"),
    }
}

fn started(target: PathBuf) -> Told {
    let mut single = Single(None);
    // Several may look at the same time.
    let id = format!("doctor-{}", std::process::id());
    let plan = Plan::new(&id, target, vec![PROGRAM.into()]);
    let failed = match launcher::run(&plan, None, Box::new(Empty), &mut single) {
        Err(error) if error.exit_code() == EXIT_NOT_FOUND => None,
        Err(error) => Some(error.to_string()),
        Ok(ended) => Some(format!("a program that is not there exited with {}", ended.code())),
    };
    Told { failed, single: single.0 }
}

/// A directory to mount on, in a mount namespace that goes: the store, if there is one yet.
fn mount_point(store: &Path) -> PathBuf {
    let places = [store, Path::new("/tmp"), Path::new("/run")];
    places.into_iter().find(|place| place.is_dir()).unwrap_or(Path::new("/dev")).to_owned()
}

struct Single(Option<String>);

impl Events for Single {
    fn single_id(&mut self, reason: &str) {
        self.0 = Some(reason.to_owned());
    }
}

/// Nothing, on a tmpfs; after our own filesystem could be mounted there as well.
#[derive(Debug)]
struct Empty;

impl Rootfs for Empty {
    fn mount(&mut self, target: &Path) -> io::Result<Vec<RawFd>> {
        // Nobody serves it, so nobody may look at it; without its descriptor it is dead.
        let device = fuse_mount::mount(target, "layerfs-doctor", MsFlags::MS_NODEV)?;
        drop(device);
        fuse_mount::unmount_lazily(target)?;
        let empty =
            new_filesystem("tmpfs", &[("mode", "755"), ("size", "1m")], MountAttrFlags::MOUNT_ATTR_NODEV)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let onto = rustix::fs::open(target, flags, Mode::empty())?;
        attach(empty.as_fd(), onto.as_fd())?;
        Ok(Vec::new())
    }

    fn serve(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn how_it_went() {
        let told = |failed: Option<&str>, single: Option<&str>| {
            check(Told { failed: failed.map(str::to_owned), single: single.map(str::to_owned) })
        };
        assert_eq!(told(None, None).outcome, Outcome::Ok);
        assert_eq!(told(None, Some("why")).outcome, Outcome::Warning);
        let failed = told(Some("because"), Some("why"));
        assert!(failed.outcome == Outcome::Missing && failed.says.contains("because"), "{failed:?}");
    }
}
