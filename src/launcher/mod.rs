//! Row 8: starts a process in namespaces of its own. Knows a root filesystem as something that mounts itself; never a layer.
//!
//! Three processes, each with one job:
//!
//! * the *starter* ([`run()`]) is what the user called: it writes the id maps, forwards signals and the terminal, and returns the
//!   exit code;
//! * the *supervisor* owns the user and mount namespace, serves the root filesystem with its own threads, and takes everything
//!   down at the end;
//! * the container's *first process* sets itself up and becomes the program. Where an OCI runtime of the host is to make the
//!   container, it has that do so, and stays.
//!
//! Invariants: a [`Plan`] is complete before anything is done. Nothing is mounted by a path of the image: pivot_root(2) comes
//! first, then every mount is attached to a descriptor that was opened without leaving the root. When any of the three dies,
//! by whatever signal, no process and no mount stays.

mod as_root;
mod beside;
mod bundle;
mod capabilities;
mod cgroup;
mod connection;
mod early_users;
mod ended;
mod environment;
mod events;
mod failure;
mod files;
mod fill;
mod host;
mod id_maps;
mod in_root;
mod init;
mod inside;
mod mounts;
mod namespaces;
mod own_ids;
mod own_program;
mod passwd;
mod plan;
mod ports;
mod program;
mod read_ahead;
mod relay;
mod resources;
mod rlimits;
mod rootfs;
mod run;
mod runtime;
mod seccomp;
mod seccomp_docker;
mod signals;
mod starter;
mod streams;
mod supervisor;
mod syscall_filter;
mod terminal;
mod user;
mod user_mounts;
mod user_namespace;

pub use as_root::as_root_of;
pub use beside::exec;
pub use bundle::OCI_CONFIG;
pub use capabilities::Capabilities;
pub use cgroup::{Cgroup, Usage, groups_here, limit};
pub use connection::SLIRP4NETNS_SOCKET;
pub use early_users::EarlyUsers;
pub use ended::Ended;
pub use events::{Events, Input, NoEvents, show};
pub use failure::{EXIT_LAUNCHER, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_SIGNAL_BASE, Failure};
pub use files::{HostAddress, Names, default_files};
pub use id_maps::{IdMaps, IdRange};
pub use inside::{Work, join, mounted};
pub use own_ids::{IdMap, MapError, OwnIds, inside};
pub use own_program::{OwnProgramError, make_own_program_unwritable};
pub use plan::{
    AddedUser, Device, GeneratedFile, MountFlags, Network, Output, Plan, SHM_BYTES, Seccomp, Tmpfs, Volume,
    Window,
};
pub use ports::{PortTaken, choose as choose_ports};
pub use resources::{Cgroups, Limit, Resources};
pub use rlimits::{Resource, Rlimit};
pub use rootfs::{BindRootfs, Rootfs};
pub use run::{LaunchError, run};
pub use seccomp::ProfileError;
pub use seccomp_docker::check_profile;
pub use signals::BlockedSignals;
pub use streams::Stream;
pub use terminal::{RawMode, window};
pub use user_namespace::{UserNamespace, UserNamespaceError};
