//! Row 8: starts a process in namespaces of its own. Knows a root filesystem as something that mounts itself; never a layer.
//!
//! Three processes, each with one job:
//!
//! * the *starter* ([`run()`]) is what the user called: it writes the id maps, forwards signals and the terminal, and returns the
//!   exit code;
//! * the *supervisor* owns the user and mount namespace, serves the root filesystem with its own threads, and takes everything
//!   down at the end;
//! * the container's *first process* sets itself up and becomes the program.
//!
//! Invariants: a [`Plan`] is complete before anything is done. Nothing is mounted by a path of the image: pivot_root(2) comes
//! first, then every mount is attached to a descriptor that was opened without leaving the root. When any of the three dies,
//! by whatever signal, no process and no mount stays.

mod as_root;
mod beside;
mod capabilities;
mod environment;
mod failure;
mod files;
mod host;
mod id_maps;
mod in_root;
mod init;
mod mounts;
mod own_ids;
mod passwd;
mod plan;
mod program;
mod relay;
mod rootfs;
mod run;
mod seccomp;
mod streams;
mod supervisor;
mod syscall_filter;
mod terminal;
mod user;
mod user_namespace;

pub use as_root::as_root_of;
pub use beside::exec;
pub use capabilities::Capabilities;
pub use failure::{EXIT_LAUNCHER, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_SIGNAL_BASE, Failure};
pub use files::default_files;
pub use id_maps::{IdMaps, IdRange};
pub use own_ids::{IdMap, MapError, OwnIds, inside};
pub use plan::{AddedUser, GeneratedFile, Network, Output, Plan, Resource, Rlimit, Seccomp, Tmpfs, Volume};
pub use rootfs::{BindRootfs, Rootfs};
pub use run::{Events, LaunchError, NoEvents, run, show};
pub use seccomp::ProfileError;
pub use streams::Stream;
pub use user_namespace::{UserNamespace, UserNamespaceError};
