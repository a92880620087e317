//! A container's connection to the world: a program of the host that carries what goes in and out of its network.
//!
//! That program, `pasta` or `slirp4netns`, is a child of the starter, in the foreground and with a parent-death signal: of the ways
//! to be rid of it this is the only one that cannot fail. A program that has gone into the background on its own is
//! found by a file at best, and neither reliably notices the end of a network namespace that it holds itself. When the
//! supervisor dies first, the starter ends it.
//!
//! It is handed the network namespace as its standard input, and says that it is ready on its standard output; so no
//! other descriptor is inherited, and no file is made.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::fs::OFlags;

use super::failure::{Context as _, Failure, Step};
use super::plan::{Network, Plan};
use crate::sys::companion;

mod pasta;
mod slirp4netns;

pub use slirp4netns::SOCKET as SLIRP4NETNS_SOCKET;

/// The container's address. It is the same for both programs, and that of slirp4netns when nothing else is said.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
/// The way to everywhere else.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Who answers for the host's name server, wherever that is.
pub(super) const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// What is told of what a program said.
const SAID_BYTES_MAX: u64 = 64 << 10;

/// What is read of its standard output at once.
const SAID_AT_ONCE_BYTES: usize = 4096;

/// The starter's end of it.
#[derive(Debug)]
pub(super) struct Connection {
    /// Tells the container's first process that the network is there; closed when it never will be.
    connected: Option<PipeWriter>,
    /// The user namespace from which the network can be reached.
    users: Option<OwnedFd>,
    carrier: Option<Carrier>,
}

/// The program that carries.
#[derive(Debug)]
struct Carrier {
    tool: Tool,
    child: Child,
    has_ended: bool,
    /// Until it is ready.
    ready: Option<PipeReader>,
    said: PipeReader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Pasta,
    Slirp4netns,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// Whether it is, by what it wrote to standard output.
    fn is_ready(self, text: &[u8]) -> bool {
        match self {
            // The number of its process, and nothing else.
            Self::Pasta => true,
            // A single digit; before that there may be warnings.
            Self::Slirp4netns => text.ends_with(b"1"),
        }
    }

    /// Debian's, and that of others.
    fn package(self) -> &'static str {
        match self {
            Self::Pasta => "passt",
            Self::Slirp4netns => "slirp4netns",
        }
    }
}

impl Connection {
    /// Both ends: the starter's, and that of the container's first process, if its network is to be connected.
    pub(super) fn pair(plan: &Plan) -> io::Result<(Self, Option<PipeReader>)> {
        let (there, here) = if plan.network.is_connected() {
            let (there, here) = io::pipe()?;
            (Some(there), Some(here))
        } else {
            (None, None)
        };
        Ok((Self { connected: here, users: None, carrier: None }, there))
    }

    /// Notes the user namespace to which the network belongs, or which is above that one.
    pub(super) fn enter(&mut self, users: Option<OwnedFd>) {
        self.users = users;
    }

    /// Starts the program that is to carry.
    pub(super) fn start(&mut self, plan: &Plan, network: Option<OwnedFd>) -> Step<()> {
        let Some(network) = network else { return Ok(()) };
        let (tool, program) = find(plan.network)?;
        check_tun()?;
        let mut command = Command::new(program);
        match tool {
            Tool::Pasta => command.args(pasta::arguments(&plan.published)).current_dir("/"),
            Tool::Slirp4netns => {
                if let Some(refused) = slirp4netns::refusal(&plan.published) {
                    return Err(Box::new(refused));
                }
                let dir = slirp4netns::directory(plan);
                slirp4netns::forget_socket(dir).at("remove", dir)?;
                command.args(slirp4netns::arguments(&plan.published)).current_dir(dir)
            }
        };
        let (ready, ready_there) = io::pipe().stage("pipe")?;
        let (said, said_there) = io::pipe().stage("pipe")?;
        // Nobody reads that while the container runs: what does not fit is lost, and nothing waits; nor do we for who may still
        // hold the other end.
        rustix::fs::fcntl_setfl(&said_there, OFlags::NONBLOCK).stage("pipe")?;
        rustix::fs::fcntl_setfl(&said, OFlags::NONBLOCK).stage("pipe")?;
        command.stdin(network).stdout(ready_there).stderr(said_there);
        let child = companion::spawn(&mut command, self.users.take()).stage(tool.name())?;
        self.carrier = Some(Carrier { tool, child, has_ended: false, ready: Some(ready), said });
        Ok(())
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> Option<BorrowedFd<'_>> {
        Some(self.carrier.as_ref()?.ready.as_ref()?.as_fd())
    }

    /// Some child of the starter has ended: perhaps this one.
    pub(super) fn child_ended(&mut self) {
        // Before it is ready, its silence says so.
        if let Some(carrier) = self.carrier.as_mut().filter(|carrier| carrier.ready.is_none()) {
            carrier.collect();
        }
    }

    /// Hears that the program is ready, and lets the container go on.
    pub(super) fn turn(&mut self, plan: &Plan) -> Step<()> {
        let Some(carrier) = &mut self.carrier else { return Ok(()) };
        let Some(ready) = &mut carrier.ready else { return Ok(()) };
        let mut text = [0; SAID_AT_ONCE_BYTES];
        let len = ready.read(&mut text).stage(carrier.tool.name())?;
        if len == 0 {
            return Err(Box::new(carrier.failure()));
        }
        if !carrier.tool.is_ready(&text[..len]) {
            return Ok(());
        }
        carrier.ready = None;
        if carrier.tool == Tool::Slirp4netns {
            slirp4netns::publish(slirp4netns::directory(plan), &plan.published)?;
        }
        if let Some(mut connected) = self.connected.take()
            && let Err(error) = connected.write_all(b"c")
        {
            tracing::debug!(%error, "the container's first process is gone already");
        }
        Ok(())
    }
}

impl Carrier {
    /// Collects it when it has ended before the container, which then goes on without.
    fn collect(&mut self) {
        if !self.has_ended
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.has_ended = true;
            tracing::warn!(tool = self.tool.name(), %status, said = said(&self.said), "ended before the container, which has no network now");
        }
    }

    /// Why it has ended, in its own words.
    fn failure(&mut self) -> Failure {
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let text = said(&self.said);
        let message = if text.is_empty() { status } else { text };
        let failure = Failure::new(self.tool.name(), &io::Error::other(message.clone()));
        match self.tool {
            Tool::Pasta if message.contains("routable interface") || message.contains("default route") => failure
                .hint(
                    "pasta takes part in the host's own network, which has no default route; --network slirp4netns \
                     does without one",
                ),
            _ => failure,
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.collect();
        if self.has_ended {
            return;
        }
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            tracing::warn!(%error, tool = self.tool.name(), "cannot end it");
        }
    }
}

/// What a program that has ended wrote to its standard error, but for what it says of the system's log.
fn said(pipe: &PipeReader) -> String {
    let mut text = Vec::new();
    // Whatever came before the error is all that there is to tell.
    pipe.take(SAID_BYTES_MAX).read_to_end(&mut text).ok();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.ends_with("to syslog"));
    lines.collect::<Vec<_>>().join("; ")
}

/// The program that is to be used, and where it is.
fn find(network: Network) -> Step<(Tool, PathBuf)> {
    let tools: &[Tool] = match network {
        Network::None | Network::Host => &[],
        Network::Pasta => &[Tool::Pasta],
        Network::Slirp4netns => &[Tool::Slirp4netns],
        // Without a default route there is nothing that pasta could take part in.
        Network::Private if has_default_route() => &[Tool::Pasta, Tool::Slirp4netns],
        Network::Private => &[Tool::Slirp4netns, Tool::Pasta],
    };
    let path = std::env::var_os("PATH").unwrap_or_else(|| STANDARD_PATH.into());
    let found = |tool: &Tool| Some((*tool, in_path(&path, tool.name())?));
    tools.iter().find_map(found).ok_or_else(|| {
        let names: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
        let packages: Vec<&str> = tools.iter().map(|tool| tool.package()).collect();
        let error = io::Error::other(format!("{} is not installed", names.join(" or ")));
        let hint = format!("Debian package {}; --network host and none do without", packages.join(" or "));
        Box::new(Failure::new("network", &error).hint(hint))
    })
}

/// Where programs are when nobody says so.
const STANDARD_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn in_path(path: &std::ffi::OsStr, name: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.is_file() && rustix::fs::access(path.as_path(), rustix::fs::Access::EXEC_OK).is_ok()
    };
    // A relative one would be another's when the directory is changed.
    let dirs = std::env::split_paths(path).filter(|dir| dir.is_absolute());
    dirs.map(|dir| dir.join(name)).find(is_program)
}

/// Whether the host itself knows a way to everywhere, by either protocol.
fn has_default_route() -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    is_default_route_in(&read("/proc/net/route"), &read("/proc/net/ipv6_route"))
}

/// `RTF_UP` and `RTF_REJECT` (linux/route.h).
const ROUTE_UP: u32 = 0x1;
const ROUTE_REJECT: u32 = 0x200;

fn is_default_route_in(v4: &str, v6: &str) -> bool {
    let is_up = |flags: Option<&&str>| {
        let flags = flags.and_then(|flags| u32::from_str_radix(flags, 16).ok()).unwrap_or_default();
        flags & (ROUTE_UP | ROUTE_REJECT) == ROUTE_UP
    };
    v4.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000") && is_up(fields.get(3))
    }) || v6.lines().any(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_all = fields.first().is_some_and(|to| to.bytes().all(|byte| byte == b'0'));
        is_all && fields.get(1) == Some(&"00") && fields.get(9) != Some(&"lo") && is_up(fields.get(8))
    })
}

/// Both need it, and what they say when it is not there does not help.
fn check_tun() -> Step<()> {
    let path = Path::new("/dev/net/tun");
    match File::options().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => "as root: chmod 666 /dev/net/tun",
                _ => "as root: modprobe tun; in a container, start that with --device /dev/net/tun",
            };
            Err(Box::new(Failure::new("network: open", &error).on(path).hint(hint)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes() {
        let head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
        let v4 = |line: &str| is_default_route_in(&format!("{head}{line}\n"), "");
        assert!(v4("eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0"));
        assert!(!v4("eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"));
        let zeros = "0".repeat(32);
        let v6 = |prefix: &str, flags: &str, name: &str| {
            let line = format!("{zeros} {prefix} {zeros} 00 {zeros} 00000400 1 0 {flags} {name}\n");
            is_default_route_in(head, &line)
        };
        assert!(v6("00", "00000003", "eth0"));
        // What every host has to refuse everything.
        assert!(!v6("00", "00200200", "lo") && !v6("40", "00000001", "eth0"));
    }

    #[test]
    fn ready_is_said_last() {
        assert!(Tool::Slirp4netns.is_ready(b"1") && Tool::Slirp4netns.is_ready(b"WARNING: x\n1"));
        assert!(!Tool::Slirp4netns.is_ready(b"WARNING: Support for seccomp is experimental\n"));
        assert!(Tool::Pasta.is_ready(b"4242\n"));
    }

    #[test]
    fn programs_of_the_path() {
        assert!(in_path(std::ffi::OsStr::new("/nowhere:/usr/bin:/bin"), "sh").is_some());
        assert!(in_path(std::ffi::OsStr::new("/nowhere:."), "sh").is_none());
    }
}
