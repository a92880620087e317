//! What a launch will do, complete before anything is done.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::capabilities::Capabilities;
use super::id_maps::IdMaps;
use super::own_ids::OwnIds;
use super::resources::Resources;
use super::rlimits::Rlimit;
use crate::model::port::Published;

/// One container start. Plain data: it can be printed, stored and compared before anything happens.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The container's id, for messages.
    pub id: String,
    /// Its host name.
    pub hostname: String,
    /// The program and its arguments; the program is looked for in the container's `PATH`.
    pub args: Vec<OsString>,
    /// `KEY=value`, already complete but for what the container's files say (`HOME`). Of equal keys the last one wins.
    pub env: Vec<OsString>,
    /// Where the program starts.
    pub cwd: PathBuf,
    /// Whether a missing `cwd` is made (podman: when the image names it) or is an error (when the user does).
    pub create_cwd: bool,
    /// `user[:group]`, names or numbers, resolved in the container's own files.
    pub user: String,
    /// Groups beyond those that the container's files give the user: names or numbers, resolved there.
    pub groups: Vec<String>,
    /// After what time the program is killed.
    pub timeout: Option<Duration>,
    /// Whether a process of ours is the container's first, which passes signals on and collects orphans.
    pub init: bool,
    /// Whether orphans among its descendants become the program's own children, so that all it has started can be found.
    pub subreaper: bool,
    /// Whether the program gets a terminal of its own.
    pub terminal: bool,
    /// The size of that terminal at its beginning; our own terminal's when not set.
    pub window: Option<Window>,
    /// Whether our standard input, or what [`super::Input`] is given, reaches the program; else it reads `/dev/null`.
    pub interactive: bool,
    /// Where it writes when it has no terminal.
    pub output: Output,
    /// Its network.
    pub network: Network,
    /// Its ports that are reached through the host's; none but with a network of its own.
    pub published: Vec<Published>,
    /// Host files and directories shown in the container.
    pub volumes: Vec<Volume>,
    /// Fresh tmpfs mounts.
    pub tmpfs: Vec<Tmpfs>,
    /// Files that are made for this container: `/etc/hosts` and the like.
    pub files: Vec<GeneratedFile>,
    /// Whether the root filesystem is read-only for the program.
    pub read_only: bool,
    /// How ids of the supervisor become ids of the host.
    pub id_maps: IdMaps,
    /// The container's, if it has other ids than the supervisor.
    pub own_ids: Option<OwnIds>,
    /// A user who is added to the container's own files, where they do not know it.
    pub added_user: Option<AddedUser>,
    /// An empty private directory of the host, on which the root filesystem is mounted (in a mount namespace of its own).
    pub rootfs_mount_point: PathBuf,
    /// Paths that are hidden, as far as they exist.
    pub masked_paths: Vec<PathBuf>,
    /// Paths that are made read-only, as far as they exist.
    pub read_only_paths: Vec<PathBuf>,
    /// What root of the container may do.
    pub capabilities: Capabilities,
    /// What another user may do: root has all of its own capabilities, others only what was asked for by name.
    pub capabilities_of_users: Capabilities,
    /// The filter of system calls.
    pub seccomp: Seccomp,
    /// Whether `/sys` can be written, as far as the kernel allows it.
    pub writable_sys: bool,
    /// Device nodes of the host.
    pub devices: Vec<Device>,
    /// Whether setuid programs are powerless. Always so with a single id, where they could not work anyway.
    pub no_new_privileges: bool,
    /// Resource limits to set; all others are inherited.
    pub rlimits: Vec<Rlimit>,
    /// `oom_score_adj` of the program; inherited when not set.
    pub oom_score_adj: Option<i32>,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
    /// What its control group limits.
    pub resources: Resources,
    /// The OCI runtime of the host that makes the container, by its absolute path; nothing for ourselves.
    pub runtime: Option<PathBuf>,
}

/// A filter of system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// The default one.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// The text of a profile in docker's form.
    Profile(String),
}

/// A device node of the host, shown in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path on the host.
    #[serde(with = "any_path")]
    pub source: PathBuf,
    /// Absolute path in the container; made when missing.
    #[serde(with = "any_path")]
    pub destination: PathBuf,
}

/// Where a program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// To our own standard output and error.
    Passed,
    /// To [`super::Events::wrote`].
    Taken,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// A container's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A network namespace with nothing but `lo`.
    #[default]
    None,
    /// The host's.
    Host,
    /// One of its own, that [`Self::Pasta`] or [`Self::Slirp4netns`] connects, whichever is there.
    Private,
    /// One of its own; `pasta` carries what goes in and out.
    Pasta,
    /// One of its own; `slirp4netns` carries what goes in and out.
    Slirp4netns,
}

impl Network {
    /// Whether a program of the host connects it.
    #[must_use]
    pub fn is_connected(self) -> bool {
        match self {
            Self::None | Self::Host => false,
            Self::Private | Self::Pasta | Self::Slirp4netns => true,
        }
    }
}

/// A host file or directory shown in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Absolute path on the host; must exist.
    #[serde(with = "any_path")]
    pub source: PathBuf,
    /// Absolute path in the container; made when missing.
    #[serde(with = "any_path")]
    pub destination: PathBuf,
    /// How it, and all that is mounted below it, may be used.
    pub flags: MountFlags,
    /// Whether what is mounted below it is shown too.
    pub recursive: bool,
    /// Whether it gets what the image has there, if there is nothing in it yet.
    pub fill: bool,
}

impl Volume {
    /// A file or directory with all that is mounted below it, to be read, written and executed.
    #[must_use]
    pub fn new(source: PathBuf, destination: PathBuf) -> Self {
        Self { source, destination, flags: MountFlags::default(), recursive: true, fill: false }
    }
}

/// What may be done with a mount beyond reading, writing and executing; or less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountFlags {
    /// Nothing is written.
    pub read_only: bool,
    /// Nothing is executed.
    pub no_exec: bool,
    /// Set-user-ID, set-group-ID and file capabilities count.
    pub set_ids: bool,
    /// Device nodes can be opened.
    pub devices: bool,
}

/// Paths in documents, also those that are not UTF-8.
mod any_path {
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<PathBuf, D::Error> {
        OsString::deserialize(from).map(PathBuf::from)
    }
}

/// A fresh tmpfs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Absolute path in the container; made when missing.
    #[serde(with = "any_path")]
    pub destination: PathBuf,
    /// Permission bits of its root.
    pub mode: u32,
    /// Who owns its root.
    pub owner: (u32, u32),
    /// Its size in bytes; the kernel's default (half of the memory) when not set.
    pub bytes: Option<u64>,
    /// How many files it can have; the kernel's default when not set.
    pub inodes: Option<u64>,
    /// How it may be used.
    pub flags: MountFlags,
    /// Whether it gets what the image has there.
    pub fill: bool,
    /// Whether its root then gets owner and mode of what the image has there.
    pub as_in_image: bool,
}

impl Tmpfs {
    /// One with nothing in it, of root's.
    #[must_use]
    pub fn new(destination: PathBuf, mode: u32) -> Self {
        let flags = MountFlags::default();
        Self {
            destination,
            mode,
            owner: (0, 0),
            bytes: None,
            inodes: None,
            flags,
            fill: false,
            as_in_image: false,
        }
    }
}

/// A file made for this container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GeneratedFile {
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// What is in it.
    pub content: String,
}

/// Somebody for `/etc/passwd` and `/etc/group` of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddedUser {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The user's name.
    pub name: String,
    /// The group's name.
    pub group: String,
    /// What else is known of the user.
    pub gecos: String,
    /// The home directory, where a volume shows it; else it is the working directory.
    pub home: Option<PathBuf>,
}

impl Plan {
    /// A plan with podman's defaults, to run `args` as root with no network.
    #[must_use]
    pub fn new(id: &str, rootfs_mount_point: PathBuf, args: Vec<OsString>) -> Self {
        let hostname: String = id.chars().take(12).collect();
        Self {
            id: id.to_owned(),
            hostname,
            args,
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            create_cwd: false,
            user: String::new(),
            groups: Vec::new(),
            timeout: None,
            init: false,
            subreaper: false,
            terminal: false,
            window: None,
            interactive: false,
            output: Output::Passed,
            network: Network::None,
            published: Vec::new(),
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            files: Vec::new(),
            read_only: false,
            id_maps: IdMaps::for_caller(),
            own_ids: None,
            added_user: None,
            rootfs_mount_point,
            masked_paths: MASKED_PATHS.iter().map(PathBuf::from).collect(),
            read_only_paths: READ_ONLY_PATHS.iter().map(PathBuf::from).collect(),
            capabilities: Capabilities::DEFAULT,
            capabilities_of_users: Capabilities::NONE,
            seccomp: Seccomp::Default,
            writable_sys: false,
            devices: Vec::new(),
            no_new_privileges: false,
            rlimits: Vec::new(),
            oom_score_adj: None,
            shm_bytes: SHM_BYTES,
            resources: Resources::default(),
            runtime: None,
        }
    }

    /// Whether the user has something mounted there.
    #[must_use]
    pub fn has_at(&self, destination: &Path) -> bool {
        self.volumes.iter().any(|volume| volume.destination == destination)
            || self.tmpfs.iter().any(|tmpfs| tmpfs.destination == destination)
            || self.devices.iter().any(|device| device.destination == destination)
    }

    /// What podman mounts for `--read-only`, so that programs still find places for temporary files.
    pub fn add_read_only_tmpfs(&mut self) {
        for (destination, mode) in [("/run", 0o755), ("/tmp", 0o1777), ("/var/tmp", 0o1777)] {
            if !self.has_at(Path::new(destination)) {
                self.tmpfs.push(Tmpfs::new(PathBuf::from(destination), mode));
            }
        }
    }
}

/// Docker's and podman's size of `/dev/shm`: 64 MiB.
pub const SHM_BYTES: u64 = 64 << 20;

/// Files that tell about, or act on, the host; podman's list.
const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

/// Files that would change the host; podman's list.
const READ_ONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
