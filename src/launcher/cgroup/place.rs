//! Where a container's control group can be made, and why it cannot.

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::controllers;
use super::hierarchy::{self, Hierarchy};
use super::systemd::{self, Manager};
use crate::launcher::failure::Failure;
use crate::launcher::resources::{Resources, Setting};

/// Where a container's control group can be made.
#[derive(Debug)]
pub(super) enum Place {
    /// In a group that may have processes beside.
    Beside {
        /// The topmost that may be changed.
        top: PathBuf,
        /// The one to make it in.
        parent: PathBuf,
    },
    /// In the group that this process is in: it has no other processes.
    Delegated {
        /// That group.
        group: PathBuf,
    },
    /// systemd makes it.
    Systemd {
        /// The groups as this process sees them.
        hierarchy: Hierarchy,
        /// Whom to ask.
        manager: Manager,
        /// Where.
        slice: Option<String>,
    },
}

/// Why there is no control group.
#[derive(Debug)]
pub(super) struct Missing {
    why: String,
    help: String,
}

const DROP_IT: &str = "leave the option out";

impl Missing {
    fn new(why: impl Into<String>, help: &str) -> Self {
        Self { why: why.into(), help: help.to_owned() }
    }

    /// `--cgroups=disabled`
    pub(super) fn switched_off() -> Self {
        Self::new("it needs a control group, and --cgroups=disabled makes none", "leave one of the two out")
    }

    /// For `map_err`: making the group.
    pub(super) fn failed(group: &Path) -> impl FnOnce(io::Error) -> Self {
        let why = format!("cannot make the control group {}", group.display());
        move |error| Self::new(format!("{why}: {error}"), DROP_IT)
    }

    /// systemd has not done it.
    pub(super) fn refused(error: &io::Error) -> Self {
        Self::new(error.to_string(), DROP_IT)
    }

    /// As the end of a launch that cannot do without.
    pub(super) fn failure(self, option: &str) -> Failure {
        Failure::new(option, &io::Error::other(self.why)).hint(self.help)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.why, self.help)
    }
}

/// Finds the place. All paths are looked for below `root`.
pub(super) fn find(root: &Path, resources: &Resources) -> Result<Place, Missing> {
    let found =
        Hierarchy::find(root).map_err(|error| Missing::new(format!("/proc/self: {error}"), DROP_IT))?;
    let Some(hierarchy) = found else {
        return Err(Missing::new(
            "this host shows us no control groups of version 2",
            "boot it with systemd.unified_cgroup_hierarchy=1, or leave the option out",
        ));
    };
    let parent = resources.parent.as_deref();
    let by_systemd = systemd::runs_here(root);
    let is_top = hierarchy.own == hierarchy.top && hierarchy.shows_everything();
    if !is_top && hierarchy::is_ours(&hierarchy.own) {
        let is_given = !by_systemd || hierarchy::is_delegated(&hierarchy.own);
        let alone = hierarchy::has_only_us(&hierarchy.own);
        match (is_given, alone, by_systemd) {
            (true, true, _) if parent.is_none() => return Ok(Place::Delegated { group: hierarchy.own }),
            // Without controllers: what else is in there is not ours to move.
            (true, _, false) => return beside(hierarchy.own, parent),
            _ => {}
        }
    }
    if by_systemd {
        let slice = parent.map(slice).transpose()?;
        return match Manager::find(root) {
            Ok(manager) => Ok(Place::Systemd { hierarchy, manager, slice }),
            Err(why) => Err(Missing::new(
                why,
                "log in so that systemd starts a session for this user, or have root do `loginctl enable-linger`; \
                 or leave the option out",
            )),
        };
    }
    // Nobody else divides the groups of such a system.
    if hierarchy.shows_everything() && hierarchy::is_ours(&hierarchy.top) {
        return beside(hierarchy.top, parent);
    }
    let why = format!("the control group {} is not ours to divide", hierarchy.own.display());
    Err(Missing::new(
        why,
        "have it handed over (owned by this user, with its cgroup.procs), or leave the option out",
    ))
}

fn beside(top: PathBuf, parent: Option<&str>) -> Result<Place, Missing> {
    let below = Path::new(parent.unwrap_or_default());
    let below = below.strip_prefix("/").unwrap_or(below);
    if !below.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(Missing::new(
            format!("{} is no path of control groups", below.display()),
            "give one as /a/b",
        ));
    }
    Ok(Place::Beside { parent: top.join(below), top })
}

/// Docker's words.
fn slice(parent: &str) -> Result<String, Missing> {
    let is_slice = parent.strip_suffix(".slice").is_some_and(|name| !name.is_empty() && !name.contains('/'));
    if is_slice {
        Ok(parent.to_owned())
    } else {
        Err(Missing::new(
            "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"",
            "systemd divides the control groups of this host",
        ))
    }
}

/// Why a limit cannot be set.
pub(super) fn explain(leaf: &Path, setting: &Setting, error: &io::Error) -> Missing {
    let controller = setting.controller;
    let parent = leaf.parent().unwrap_or(leaf);
    if controllers::has(leaf, controller).unwrap_or(false) {
        let file = leaf.join(setting.ways.last().map_or("", |way| way.0));
        let help = match error.kind() {
            io::ErrorKind::NotFound => "this kernel is built without it",
            _ => "the kernel refuses this value",
        };
        return Missing::new(format!("{}: {error}", file.display()), help);
    }
    let why = format!("there is no controller {controller:?} in the control group {}", parent.display());
    if controllers::is_of_version_1(controller) {
        let help = "it belongs to version 1 here: boot with systemd.unified_cgroup_hierarchy=1, or leave the option out";
        return Missing::new(why, help);
    }
    if hierarchy::processes(parent).is_ok_and(|there| !there.is_empty()) {
        return Missing::new(
            why,
            "move the processes of that group to one below it, or leave the option out",
        );
    }
    Missing::new(
        why,
        "have root hand it on (`systemctl edit user@.service`: [Service] Delegate=cpu cpuset io memory pids), or leave the \
         option out",
    )
}
