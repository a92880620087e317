//! The control group of a container (cgroups(7), version 2).
//!
//! Only the container's processes are in its leaf, born into it. The supervisor serves their root filesystem and stays outside:
//! frozen, short of memory or killed with them it would leave them waiting for ever. Groups that hand controllers on have no
//! processes of their own, so where such a group is ours alone the supervisor moves to a leaf beside (`sup`).
//!
//! Where the leaf is: in a group that was delegated to us and has no other processes; else in a scope that systemd makes; as
//! root of a system without systemd, at the top. Otherwise there is none, and a limit that was asked for is an error.

mod controllers;
mod hierarchy;
mod leaf;
mod place;
mod systemd;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};

use super::failure::{Context as _, Failure, Step};
use super::plan::{Output, Plan};
use super::resources::{Cgroups, Resources};
use super::run::LaunchError;
use hierarchy::Hierarchy;
pub(super) use leaf::Leaf;
pub use leaf::{Cgroup, Usage};
use place::{Missing, Place};
use systemd::Manager;

/// How long systemd may take to move a process.
const MOVE_WAIT: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A control group that was made for a container, and what has to be undone.
#[derive(Debug)]
pub(super) struct Made {
    leaf: PathBuf,
    /// Groups to remove, from the innermost.
    groups: Vec<PathBuf>,
    /// A group that this process was in, and the one that handed its controllers on for us.
    came_from: Option<PathBuf>,
}

/// Makes the control group of a container whose supervisor is `supervisor`. Without one, `None`; that is an error only when
/// something was asked for that needs it.
pub(super) fn make(plan: &Plan, supervisor: i32) -> Step<Option<Made>> {
    let asked = plan.resources.needs_cgroup();
    let made = match (plan.resources.cgroups, asked) {
        (Cgroups::Disabled, None) => return Ok(None),
        (Cgroups::Disabled, Some(_)) => Err(Missing::switched_off()),
        (Cgroups::Enabled, _) => {
            place::find(Path::new("/"), &plan.resources).and_then(|place| place.make(plan, supervisor))
        }
    };
    match (made, asked) {
        (Ok(made), _) => made.limit(&plan.resources).map(Some),
        (Err(missing), Some(option)) => Err(Box::new(missing.failure(option))),
        (Err(missing), None) => {
            tracing::debug!(%missing, "no control group");
            Ok(None)
        }
    }
}

impl Place {
    fn make(self, plan: &Plan, supervisor: i32) -> Result<Made, Missing> {
        let id = &plan.id;
        match self {
            Self::Beside { top, parent } => {
                beside(&top, &parent, &plan.resources, id).map_err(Missing::failed(&parent))
            }
            Self::Delegated { group } => {
                let top = group.join(format!("{PREFIX}{id}"));
                let made = hierarchy::processes(&group).and_then(|pids| divide(&top, &pids, Some(&group)));
                made.map_err(Missing::failed(&top))
            }
            Self::Systemd { hierarchy, manager, slice } => {
                let name = format!("{PREFIX}{id}-{supervisor}.scope");
                let mut pids = vec![supervisor];
                if plan.output == Output::Taken {
                    // In the background nothing of the container should end with the caller's session.
                    pids.push(rustix::process::getpid().as_raw_nonzero().get());
                }
                manager
                    .start_scope(&name, &pids, slice.as_deref())
                    .map_err(|error| Missing::refused(&error))?;
                // All of them: who is not in the scope yet cannot be moved within it.
                let wait = |pid: &i32| wait_for_move(&hierarchy, *pid, Path::new(&name));
                let moved: io::Result<Vec<PathBuf>> = pids.iter().map(wait).collect();
                let scope = moved.map_err(|error| Missing::refused(&error))?.swap_remove(0);
                divide(&scope, &pids, None).map_err(Missing::failed(&scope))
            }
        }
    }
}

/// What groups of ours are called: this, and the container's id.
const PREFIX: &str = "layerfs-";

/// A leaf in a group that may have processes beside it.
fn beside(top: &Path, parent: &Path, resources: &Resources, id: &str) -> io::Result<Made> {
    let needed: Vec<&str> = resources.settings().iter().map(|setting| setting.controller).collect();
    let leaf = parent.join(format!("{PREFIX}{id}"));
    let mut groups = Vec::new();
    let mut group = top.to_owned();
    for name in leaf.strip_prefix(top).map_err(io::Error::other)? {
        hand_on(&group, &needed);
        group.push(name);
        if group == leaf {
            create(&group)?;
        } else if !group.is_dir() {
            fs::create_dir(&group)?;
        } else {
            continue;
        }
        groups.insert(0, group.clone());
    }
    Ok(Made { leaf, groups, came_from: None })
}

/// What is missing in the end is seen when the limit is set.
fn hand_on(group: &Path, controllers: &[&str]) {
    if let Err(error) = controllers::hand_on(group, controllers) {
        tracing::debug!(%error, group = %group.display(), "handing controllers on");
    }
}

/// Makes `sup` and `app` in a group, and moves these processes to the former. `came_from` has to be without processes to hand
/// its controllers on.
fn divide(top: &Path, pids: &[i32], came_from: Option<&Path>) -> io::Result<Made> {
    let (sup, leaf) = (top.join("sup"), top.join("app"));
    if came_from.is_some() {
        create(top)?;
    }
    create(&sup)?;
    for pid in pids {
        fs::write(sup.join("cgroup.procs"), pid.to_string())?;
    }
    for group in came_from.into_iter().chain([top]) {
        hand_on(group, &controllers::OURS);
    }
    create(&leaf)?;
    let groups = vec![leaf.clone(), sup, top.to_owned()];
    Ok(Made { leaf, groups, came_from: came_from.map(Path::to_owned) })
}

/// Makes a group. One of this name is that of a container that was killed with all who would have removed it.
fn create(group: &Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Cgroup::at(group.to_owned()).end();
            fs::create_dir(group)
        }
        result => result,
    }
}

/// Waits until systemd has moved a process to a group whose path ends so.
fn wait_for_move(hierarchy: &Hierarchy, pid: i32, scope: &Path) -> io::Result<PathBuf> {
    let since = Instant::now();
    loop {
        match hierarchy.of_process(pid)? {
            Some(group) if group.ends_with(scope) => return Ok(group),
            _ if since.elapsed() < MOVE_WAIT => std::thread::sleep(LOOK_AGAIN),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("systemd does not move a process to {}", scope.display()),
                ));
            }
        }
    }
}

/// Brings a process to where its children may be born into this leaf: who moves processes needs rights on the group that
/// both places have in common, and between two sessions of a user that is root's.
pub(super) fn bring_near(pid: i32, leaf: &Path) -> Step<()> {
    let root = Path::new("/");
    let Some(hierarchy) = Hierarchy::find(root).stage("look at the control groups")? else { return Ok(()) };
    let own = hierarchy.of_process(pid).stage("look at the control groups")?;
    let common = own.as_deref().and_then(|own| leaf.ancestors().find(|group| own.starts_with(group)));
    if common.is_some_and(hierarchy::is_ours) {
        return Ok(());
    }
    // Beside the leaf, as the supervisor is.
    let beside = leaf.with_file_name("sup");
    let unit = leaf.ancestors().find_map(|group| {
        let name = group.file_name()?.to_str()?;
        let is_unit = name.ends_with(".scope") || name.ends_with(".service");
        // Of a user's units systemd does not say it.
        let is_divided = name.starts_with(PREFIX) || hierarchy::is_delegated(group);
        (is_unit && is_divided).then_some((group, name))
    });
    let Some((group, unit)) = unit else {
        let why = io::Error::other("this process may not start others there");
        let failure = Failure::new("join the control group", &why).on(leaf);
        return Err(Box::new(failure.hint("do it in the session that the container was started in")));
    };
    let below = format!("/{}", beside.strip_prefix(group).unwrap_or(&beside).display());
    let manager = Manager::find(root).map_err(io::Error::other).at("join the control group", leaf)?;
    manager.attach(unit, &below, pid).at("join the control group", leaf)?;
    wait_for_move(&hierarchy, pid, &beside).at("join the control group", leaf)?;
    Ok(())
}

impl Made {
    /// The leaf.
    pub(super) fn path(&self) -> &Path {
        &self.leaf
    }

    fn limit(self, resources: &Resources) -> Step<Self> {
        match set(&self.leaf, resources) {
            Ok(()) => Ok(self),
            Err(failure) => {
                self.remove();
                Err(failure)
            }
        }
    }

    /// Removes it, once no process is left in it.
    pub(super) fn remove(&self) {
        Cgroup::at(self.leaf.clone()).end();
        if let Some(group) = &self.came_from {
            // Another container may need what was handed on there; then this process stays where it is.
            let returned = self
                .groups
                .last()
                .map_or(Ok(()), |top| controllers::keep(top))
                .and_then(|()| controllers::keep(group))
                .and_then(|()| fs::write(group.join("cgroup.procs"), "0"));
            if let Err(error) = returned {
                tracing::debug!(%error, group = %group.display(), "going back");
            }
        }
        for group in &self.groups {
            leaf::remove(group);
        }
    }
}

/// Sets the limits of a container that runs in this leaf.
///
/// # Errors
/// [`LaunchError::NotStarted`], with the option that cannot be honoured; of the others some may be set.
pub fn limit(leaf: &Path, resources: &Resources) -> Result<(), LaunchError> {
    let needed: Vec<&str> = resources.settings().iter().map(|setting| setting.controller).collect();
    let hierarchy = Hierarchy::find(Path::new("/")).stage("look at the control groups")?;
    let top = hierarchy.map(|hierarchy| hierarchy.top);
    let above =
        leaf.ancestors().skip(1).take_while(|group| top.as_ref().is_some_and(|top| group.starts_with(top)));
    let mut above: Vec<&Path> = above.collect();
    above.reverse();
    above.iter().for_each(|group| hand_on(group, &needed));
    let before = values(leaf, resources);
    set(leaf, resources).inspect_err(|_| restore(&before))?;
    Ok(())
}

/// What the files say now that these limits are written into.
fn values(leaf: &Path, resources: &Resources) -> Vec<(PathBuf, String)> {
    let files =
        resources.settings().into_iter().flat_map(|setting| setting.ways).map(|(file, _)| leaf.join(file));
    files.filter_map(|file| fs::read_to_string(&file).ok().map(|value| (file, value))).collect()
}

fn restore(values: &[(PathBuf, String)]) {
    for (file, value) in values {
        if let Err(error) = fs::write(file, value) {
            tracing::warn!(%error, file = %file.display(), "a limit of before the change");
        }
    }
}

fn set(leaf: &Path, resources: &Resources) -> Step<()> {
    for setting in resources.settings() {
        match (write(leaf, &setting.ways), setting.option) {
            (Ok(()), _) => {}
            (Err(error), None) => {
                tracing::debug!(%error, ways = ?setting.ways, "a limit that nobody asked for");
            }
            (Err(error), Some(option)) => {
                return Err(Box::new(place::explain(leaf, &setting, &error).failure(option)));
            }
        }
    }
    Ok(())
}

fn write(leaf: &Path, ways: &[(&str, String)]) -> io::Result<()> {
    let mut missing = io::Error::from(io::ErrorKind::NotFound);
    for (file, value) in ways {
        match fs::OpenOptions::new().write(true).open(leaf.join(file)) {
            Ok(mut file) => return io::Write::write_all(&mut file, value.as_bytes()),
            Err(error) => missing = error,
        }
    }
    Err(missing)
}

/// The containers that have groups where those of this process are made: also those that were killed with all who would have
/// removed them. Empty where systemd makes and removes them.
#[must_use]
pub fn groups_here() -> Vec<(String, Cgroup)> {
    let parent = match place::find(Path::new("/"), &Resources::default()) {
        Ok(Place::Beside { parent, .. }) => parent,
        Ok(Place::Delegated { group }) => group,
        Ok(Place::Systemd { .. }) | Err(_) => return Vec::new(),
    };
    let group = |entry: fs::DirEntry| {
        let id = entry.file_name().to_str()?.strip_prefix(PREFIX)?.to_owned();
        Some((id, Cgroup::at(entry.path())))
    };
    fs::read_dir(parent).into_iter().flatten().filter_map(|entry| group(entry.ok()?)).collect()
}

/// A leaf, to be born into, and to be looked into.
pub(super) fn open(leaf: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, leaf, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launcher::resources::Limit;

    #[test]
    fn limits_are_set_one_by_one() {
        let leaf = tempfile::tempdir().unwrap();
        let file = |name: &str| leaf.path().join(name);
        for name in ["memory.max", "memory.swap.max", "pids.max"] {
            fs::write(file(name), "").unwrap();
        }
        let memory = Resources { memory: Some(64 << 20), ..Resources::default() };
        limit(leaf.path(), &memory).unwrap();
        let text = |name: &str| fs::read_to_string(file(name)).unwrap();
        assert_eq!([text("memory.max"), text("pids.max")], ["67108864", "2048"]);
        let pids = Resources { pids_limit: Some(Limit::Of(7)), cpu_shares: Some(2), ..memory };
        let error = limit(leaf.path(), &pids).unwrap_err();
        assert!(error.to_string().contains("--cpu-shares") && error.exit_code() == 125, "{error}");
    }
}
