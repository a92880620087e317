//! The container's first process of ours where an OCI runtime of the host makes the container.
//!
//! It is the first process of a pid namespace between ours and the container's: when it ends, in whatever way, the kernel ends
//! the container with it, and what the runtime leaves behind is its child. It sees the host's files in a mount namespace of its
//! own, as the runtime must; writes the bundle; has the runtime create and start the container; waits; and has it deleted.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::mount::MountAttrFlags as Attr;

use super::bundle::{self, Bundle};
use super::capabilities::Capabilities;
use super::failure::{Context as _, EXIT_LAUNCHER, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, Failure, Step};
use super::fill;
use super::in_root::{self, Symlinks};
use super::init::{self, UMASK};
use super::mounts;
use super::namespaces;
use super::passwd;
use super::plan::Plan;
use super::program::{self, Program};
use super::rootfs;
use super::supervisor::{MESSAGE_PROCESS, MESSAGE_TERMINAL, exit_code_of_signal};
use super::terminal;
use crate::sys::companion;
use crate::sys::message_socket;
use crate::sys::mount_attributes::{Reach, attach, new_filesystem, set_attributes};
use crate::sys::process::{self, Fork, Watched};

/// What the process is given.
#[derive(Debug)]
pub(super) struct Runtime<'a> {
    pub(super) path: &'a Path,
    pub(super) program: Program<'a>,
    /// Descriptors that keep the root filesystem's server alive; ours must go.
    pub(super) close: Vec<RawFd>,
    pub(super) errors: PipeWriter,
    /// A byte comes when the network is there; closed when that failed. Nothing when there is none to wait for.
    pub(super) connected: Option<PipeReader>,
}

/// In the bundle: the runtime's own state, what it logs, the number of the container's process, and where it sends the terminal.
const STATE: &str = "state";
const LOG: &str = "log";
const PID: &str = "pid";
const CONSOLE: &str = "console";

/// Variables of the caller's that a runtime gets. Others would act on it: `NOTIFY_SOCKET`, `LISTEN_FDS`.
const VARIABLES: [&str; 4] = ["PATH", "HOME", "XDG_RUNTIME_DIR", "TMPDIR"];
/// Bytes of its log that are read.
const LOG_BYTES_MAX: u64 = 64 << 10;

impl Runtime<'_> {
    /// Has the container made, waits for its end, and ends as its program did; or says why there is none.
    pub(super) fn run(mut self) -> ! {
        let Err(failure) = self.make_and_wait();
        failure.exit(&self.errors)
    }

    fn make_and_wait(&mut self) -> Step<Infallible> {
        let plan = self.program.plan;
        for fd in &self.close {
            process::close_inherited(*fd).stage("close the root filesystem's descriptors")?;
        }
        prctl::set_dumpable(false).stage("PR_SET_DUMPABLE")?;
        program::die_with_supervisor()?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
        init::ask_for_network(&self.program)?;
        if plan.network.is_connected() {
            process::loopback_up().stage("bring up lo")?;
        }
        arrange_host()?;
        let bundle = Bundle::make(plan)?;
        if self.program.go.read_exact(&mut [0]).is_err() {
            process::exit_now(EXIT_LAUNCHER);
        }
        self.write(&bundle)?;
        init::wait_for_network(self.connected.take());
        rustix::process::chdir(bundle.path()).at("enter", bundle.path())?;
        let container = self.create(&bundle)?;
        if let Err(failure) = self.start(&bundle, &container) {
            self.delete(&bundle);
            return Err(failure);
        }
        // Closed, it says that the program runs.
        super::supervisor::close(&mut self.errors)?;
        let code = wait(container.pid)?;
        self.delete(&bundle);
        process::exit_now(code)
    }

    /// The bundle, and what has to be in the root filesystem for it.
    fn write(&self, bundle: &Bundle) -> Step<()> {
        let plan = self.program.plan;
        let root = rootfs::open_directory(&plan.rootfs_mount_point).at("open", &plan.rootfs_mount_point)?;
        let root = root.as_fd();
        passwd::add_user(root, plan).stage("add the user to /etc/passwd")?;
        let user = self.program.user(root)?;
        let available = self.program.available()?;
        let own = match user.uid {
            0 => available,
            _ => plan.capabilities_of_users.bits().intersection(available),
        };
        for volume in plan.volumes.iter().filter(|volume| volume.fill) {
            let into = rootfs::open_directory(&volume.source).at("fill", &volume.destination)?;
            fill::fill(root, &volume.destination, (into.as_fd(), true)).at("fill", &volume.destination)?;
        }
        check_cwd(root, plan)?;
        let mut places = Vec::new();
        for file in &plan.files {
            match mounts::file_with_directory(root, &file.destination) {
                Ok(_) => places.push(file.destination.clone()),
                // An image with nothing but a program.
                Err(error) if in_root::is_absent(&error) => {}
                Err(error) => return Err(error).at("mount", &file.destination),
            }
        }
        let (bounding, own) = (Capabilities::of(available), Capabilities::of(own));
        let process = bundle::Process { user, single: self.program.single, bounding, own };
        bundle.write(plan, &process, &places)
    }

    /// The container, ready to run its program.
    fn create(&mut self, bundle: &Bundle) -> Step<Created> {
        let plan = self.program.plan;
        let console = plan.terminal.then(|| UnixListener::bind(CONSOLE)).transpose().stage("terminal")?;
        let mut command = self.command(bundle);
        command.arg("create").arg("--bundle").arg(bundle.path());
        command.arg("--pid-file").arg(bundle.path().join(PID));
        if console.is_some() {
            command.args(["--console-socket", CONSOLE]);
        }
        command.arg(&plan.id);
        self.connect(&mut command).stage("standard streams")?;
        self.done(bundle, command)?;
        // Only the program is to hold them.
        self.program.streams = None;
        if let Some(console) = console {
            let master = message_socket::receive_descriptor(&console).stage("terminal")?;
            if let Some(window) = self.program.window {
                terminal::resize(master.as_fd(), window).stage("terminal")?;
            }
            let sent = self.program.control.send(MESSAGE_TERMINAL, Some(master.as_fd()));
            sent.stage("terminal")?;
        }
        let path = bundle.path().join(PID);
        let text = std::fs::read_to_string(&path).at("read", &path)?;
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let pid = number(&text).ok_or_else(|| io::Error::other("no number")).at("read", &path)?;
        let process = Watched::of(pid).stage("look at the container")?;
        let process = process.ok_or_else(|| io::Error::other("it has just ended"));
        let created = Created { pid, process: process.stage("look at the container")? };
        forbid_devices(&created.process)?;
        Ok(created)
    }

    fn start(&self, bundle: &Bundle, container: &Created) -> Step<()> {
        // Its number here is another one than the starter knows it by.
        let sent = self.program.control.send(MESSAGE_PROCESS, Some(container.process.as_fd()));
        sent.stage("report the program's process")?;
        let mut command = self.command(bundle);
        command.arg("start").arg(&self.program.plan.id);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.done(bundle, command)
    }

    /// What is left of a container that has ended.
    fn delete(&self, bundle: &Bundle) {
        let mut command = self.command(bundle);
        command.args(["delete", "--force"]).arg(&self.program.plan.id);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Err(failure) = self.done(bundle, command) {
            tracing::debug!(%failure, "deleting the container");
        }
    }

    /// What all commands have in common.
    fn command(&self, bundle: &Bundle) -> Command {
        let path = bundle.path();
        let mut command = Command::new(self.path);
        command.current_dir(path).env_clear();
        command.envs(VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.arg("--root").arg(path.join(STATE));
        command.arg("--log").arg(path.join(LOG)).args(["--log-format", "json"]);
        if makes_no_cgroups(self.path) {
            command.arg("--cgroup-manager=disabled");
        }
        command
    }

    /// The streams that a program without a terminal gets.
    fn connect(&mut self, command: &mut Command) -> io::Result<()> {
        if self.program.plan.terminal || !self.program.plan.interactive {
            command.stdin(Stdio::null());
        }
        if let Some(ends) = &mut self.program.streams {
            if let Some(input) = ends.input.take() {
                command.stdin(input);
            }
            command.stdout(ends.output.try_clone()?).stderr(ends.errors.try_clone()?);
        }
        if self.program.plan.terminal {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        Ok(())
    }

    /// Runs it to its end, and says what it complains of.
    fn done(&self, bundle: &Bundle, mut command: Command) -> Step<()> {
        let child = companion::spawn(&mut command, None);
        let mut child = child.at("runtime", self.path)?;
        // Its copies of the streams.
        drop(command);
        if child.wait().at("runtime", self.path)?.success() {
            return Ok(());
        }
        Err(Box::new(complaint(self.path, &read_log(&bundle.path().join(LOG)).unwrap_or_default())))
    }
}

/// A container that the runtime has made.
#[derive(Debug)]
struct Created {
    /// Its first process's number, as this process sees it.
    pid: u32,
    process: Watched,
}

/// Runtimes that can leave control groups alone. The container is in its own already.
fn makes_no_cgroups(runtime: &Path) -> bool {
    let name = runtime.file_name().unwrap_or_default().as_encoded_bytes();
    name.starts_with(b"crun") || name.starts_with(b"krun")
}

/// The host as the runtime is to see it: `/proc` of this pid namespace, and no control groups of version 2 beside those of
/// version 1, with which crun starts nothing. The container is in its own already, and stays there.
fn arrange_host() -> Step<()> {
    let proc = rootfs::open_directory(Path::new("/proc")).at("open", "/proc")?;
    attach(mounts::new_proc()?.as_fd(), proc.as_fd()).at("mount", "/proc")?;
    let (groups, unified) = (Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/unified"));
    if mounts::has_cgroup2(groups) || !mounts::has_cgroup2(unified) {
        return Ok(());
    }
    let inert = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_NOEXEC;
    let empty = new_filesystem("tmpfs", &[("size", "4k")], inert | Attr::MOUNT_ATTR_RDONLY);
    let place = rootfs::open_directory(unified).at("open", unified)?;
    attach(empty.stage("hide control groups")?.as_fd(), place.as_fd()).at("hide", unified)
}

/// What an image has of device nodes is dead, also where a runtime gives the root another mount than ours.
fn forbid_devices(container: &Watched) -> Step<()> {
    let child = match process::fork().stage("fork")? {
        Fork::Child => process::exit_now(match make_root_nodev(container) {
            Ok(()) => 0,
            Err(failure) => {
                tracing::error!(%failure, "the root filesystem that the runtime has made");
                EXIT_LAUNCHER
            }
        }),
        Fork::Parent(child) => child,
    };
    match waitpid(Pid::from_raw(child.pid), None).stage("wait for a child")? {
        WaitStatus::Exited(_, 0) => Ok(()),
        _ => Err(io::Error::other("cannot be forbidden")).stage("device nodes of the image"),
    }
}

fn make_root_nodev(container: &Watched) -> Step<()> {
    namespaces::join(container, CloneFlags::CLONE_NEWNS)?;
    let root = rootfs::open_directory(Path::new("/")).at("open", "/")?;
    set_attributes(root.as_fd(), Attr::MOUNT_ATTR_NODEV, Reach::One).at("make nodev", "/")
}

/// A runtime makes a working directory that is missing; here only that of the image is made.
fn check_cwd(root: BorrowedFd<'_>, plan: &Plan) -> Step<()> {
    let mounted = plan.volumes.iter().map(|volume| &volume.destination);
    let mut mounted = mounted.chain(plan.tmpfs.iter().map(|tmpfs| &tmpfs.destination));
    let usual = ["/dev", "/proc", "/sys"].iter().any(|path| plan.cwd.starts_with(path));
    if plan.create_cwd || usual || mounted.any(|path| plan.cwd.starts_with(path)) {
        return Ok(());
    }
    in_root::open(root, &plan.cwd, Symlinks::Inside).map(drop).at("working directory", &plan.cwd)
}

/// Waits for the container's program, and for all that becomes our child; gives an exit code.
fn wait(container: u32) -> Step<u8> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if is(pid, container) => {
                return Ok(u8::try_from(code).unwrap_or(EXIT_LAUNCHER));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if is(pid, container) => {
                return Ok(exit_code_of_signal(signal));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).stage("wait for the container"),
        }
    }
}

fn is(pid: Pid, number: u32) -> bool {
    u32::try_from(pid.as_raw()) == Ok(number)
}

fn read_log(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a runtime that has failed has written to its log: lines of JSON.
fn complaint(runtime: &Path, log: &str) -> Failure {
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_grave = !matches!(line["level"].as_str(), Some("debug" | "info" | "warning"));
        line["msg"].as_str().filter(|_| is_grave).map(str::to_owned)
    };
    let said = log.lines().filter_map(line).next_back();
    let said = said.unwrap_or_else(|| "it failed, and did not say why".to_owned());
    let code = exit_code_of(&said);
    Failure::new("runtime", &io::Error::other(said)).on(runtime).exit_code(code)
}

/// In the words of crun and runc.
fn exit_code_of(said: &str) -> u8 {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if !has(&["executable", "exec: \""]) {
        EXIT_LAUNCHER
    } else if has(&["not found in $PATH", "no such file or directory"]) {
        EXIT_NOT_FOUND
    } else if has(&["ermission denied", "not permitted", "exec format error", "is a directory"]) {
        EXIT_NOT_EXECUTABLE
    } else {
        EXIT_LAUNCHER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runtimes_complain_of() {
        for (said, code) in [
            ("executable file `x` not found in $PATH: No such file or directory", 127),
            (
                "runc create failed: unable to start container process: exec: \"x\": executable file not found in $PATH",
                127,
            ),
            ("runc create failed: exec: \"/x\": stat /x: no such file or directory", 127),
            ("open executable: Permission denied", 126),
            ("open executable: Operation not permitted", 126),
            ("runc create failed: exec: \"/etc\": permission denied", 126),
            ("mount `/a` to `/b`: No such file or directory", 125),
            ("mount `proc` to `proc`: Operation not permitted", 125),
        ] {
            assert_eq!(exit_code_of(said), code, "{said}");
        }
    }

    #[test]
    fn the_last_grave_line_of_a_log() {
        let log = "no json\n{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"last\"}\n\
                   {\"level\":\"warning\",\"msg\":\"beside\"}\n";
        let failure = complaint(Path::new("/x/crun"), log);
        assert_eq!((failure.to_string().as_str(), failure.exit_code), ("runtime /x/crun: last", 125));
        assert!(complaint(Path::new("/x"), "").to_string().contains("did not say why"));
    }

    #[test]
    fn who_leaves_control_groups_alone() {
        let leaves = |path: &str| makes_no_cgroups(Path::new(path));
        assert!(
            leaves("/usr/bin/crun") && leaves("/x/crun-1.8") && !leaves("/usr/sbin/runc") && !leaves("/")
        );
    }
}
