//! The group that a container's processes are in: freezing, killing, counting.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

/// How long freezing may take: a process may be in a system call that cannot be interrupted.
const FREEZE_WAIT: Duration = Duration::from_secs(10);
/// How long the kernel may take to let go of processes that were killed.
const EMPTY_WAIT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The control group of a container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup(PathBuf);

/// What the processes of a control group have used, and may; `None` where nobody counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on processors, in microseconds.
    pub cpu_micros: Option<u64>,
    /// Bytes of memory, without content of files that could go.
    pub memory: Option<u64>,
    /// Bytes of memory that there may be.
    pub memory_max: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes read from and written to disks.
    pub disk: Option<(u64, u64)>,
}

impl Cgroup {
    /// The one in this directory.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// With the one beside it, in which its supervisor was.
    #[must_use]
    pub fn whole(leaf: &Path) -> Self {
        let divided = leaf.parent().filter(|_| leaf.ends_with("app"));
        Self(divided.unwrap_or(leaf).to_owned())
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Lets no process of it run, and waits until none does.
    ///
    /// # Errors
    /// What the system says; `TimedOut` when one does not stop.
    pub fn freeze(&self) -> io::Result<()> {
        self.write("cgroup.freeze", "1")?;
        let since = Instant::now();
        while self.event("cgroup.events", "frozen")? != Some(1) {
            if since.elapsed() >= FREEZE_WAIT {
                self.thaw()?;
                return Err(io::Error::new(io::ErrorKind::TimedOut, "not all of its processes stop"));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// What the system says.
    pub fn thaw(&self) -> io::Result<()> {
        self.write("cgroup.freeze", "0")
    }

    /// Whether it was frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        fs::read_to_string(self.0.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
    }

    /// Kills all processes in it and in its groups, and removes them. Failures are logged: nobody waits for this.
    pub fn end(&self) {
        self.kill_all();
        let since = Instant::now();
        let inner = ["app", "sup"].map(|name| self.0.join(name));
        while !(inner.iter().all(|group| remove(group)) && remove(&self.0)) && since.elapsed() < EMPTY_WAIT {
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn kill_all(&self) {
        if self.event("cgroup.events", "populated").ok().flatten() == Some(1)
            && let Err(error) = self.write("cgroup.kill", "1")
        {
            tracing::debug!(%error, group = %self.0.display(), "killing what is left");
        }
    }

    /// What it has used.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let text = |file: &str| fs::read_to_string(self.0.join(file)).ok();
        let number = |file: &str| text(file)?.trim().parse::<u64>().ok();
        let cache = text("memory.stat").and_then(|stat| value(&stat, "inactive_file")).unwrap_or_default();
        Usage {
            cpu_micros: text("cpu.stat").and_then(|stat| value(&stat, "usage_usec")),
            memory: number("memory.current").map(|bytes| bytes.saturating_sub(cache)),
            memory_max: number("memory.max"),
            pids: number("pids.current").or_else(|| lines(&text("cgroup.threads")?)),
            disk: text("io.stat").map(|stat| disk(&stat)),
        }
    }

    fn event(&self, file: &str, name: &str) -> io::Result<Option<u64>> {
        Ok(value(&fs::read_to_string(self.0.join(file))?, name))
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(self.0.join(file))?.write_all(text.as_bytes())
    }
}

/// The group as the supervisor holds it, who does not find it by path any more.
#[derive(Debug)]
pub(crate) struct Leaf(OwnedFd);

impl Leaf {
    pub(in crate::launcher) fn of(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// How many of its processes were killed because there was no memory left for them.
    pub(in crate::launcher) fn oom_kills(&self) -> u64 {
        let read = || -> io::Result<String> {
            let file = rustix::fs::openat(&self.0, "memory.events", OFlags::CLOEXEC, Mode::empty())?;
            let mut text = String::new();
            File::from(file).read_to_string(&mut text)?;
            Ok(text)
        };
        // Without the controller nothing was killed for that reason.
        read().ok().and_then(|text| value(&text, "oom_kill")).unwrap_or_default()
    }
}

impl AsFd for Leaf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Removes a group that has neither processes nor groups in it; whether it is gone.
pub(super) fn remove(group: &Path) -> bool {
    match fs::remove_dir(group) {
        Ok(()) => true,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => true,
        Err(error) => {
            tracing::debug!(%error, group = %group.display(), "removing a control group");
            false
        }
    }
}

/// Of lines with a name and a number.
fn value(text: &str, name: &str) -> Option<u64> {
    let after = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(after)
}

fn lines(text: &str) -> Option<u64> {
    u64::try_from(text.lines().count()).ok()
}

/// Each line is a device's: `8:0 rbytes=1 wbytes=2 rios=...`.
fn disk(stat: &str) -> (u64, u64) {
    let sum = |name: &str| {
        let numbers =
            stat.split_ascii_whitespace().filter_map(|word| word.strip_prefix(name)?.parse::<u64>().ok());
        numbers.fold(0, u64::saturating_add)
    };
    (sum("rbytes="), sum("wbytes="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_files_say() {
        let dir = tempfile::tempdir().unwrap();
        let group = Cgroup::at(dir.path().to_owned());
        assert_eq!(group.usage(), Usage::default());
        assert!(!group.is_frozen());
        let files = [
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("memory.current", "1000\n"),
            ("memory.stat", "anon 5\ninactive_file 300\nactive_file 7\n"),
            ("memory.max", "max\n"),
            ("cgroup.threads", "4\n5\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=1\n8:16 rbytes=5 wbytes=0\n254:0\n"),
            ("cgroup.freeze", "1\n"),
        ];
        for (file, text) in files {
            fs::write(dir.path().join(file), text).unwrap();
        }
        let usage = Usage {
            cpu_micros: Some(1500),
            memory: Some(700),
            memory_max: None,
            pids: Some(2),
            disk: Some((15, 20)),
        };
        assert_eq!(group.usage(), usage);
        fs::write(dir.path().join("pids.current"), "3\n").unwrap();
        fs::write(dir.path().join("memory.max"), "4096\n").unwrap();
        assert_eq!((group.usage().pids, group.usage().memory_max), (Some(3), Some(4096)));
        assert!(group.is_frozen());
    }
}
