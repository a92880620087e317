//! Which process a number meant: ids are used again, start times are not.

use std::io;

use crate::sys::process::Watched;

const SRCH: i32 = rustix::io::Errno::SRCH.raw_os_error();

/// A process, for as long as the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessId {
    /// Its number in the pid namespace of who wrote it down.
    pub pid: u32,
    /// When it started, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_ticks: u64,
}

impl ProcessId {
    /// The process that has this number now.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn of(pid: u32) -> io::Result<Self> {
        let text = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            // It has gone between open(2) and read(2).
            Err(error) if error.raw_os_error() == Some(SRCH) => return Err(io::ErrorKind::NotFound.into()),
            text => text?,
        };
        match start_ticks(&text) {
            Some(start_ticks) => Ok(Self { pid, start_ticks }),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {text:?}"))),
        }
    }

    /// This process.
    ///
    /// # Errors
    /// When there is no /proc.
    pub fn current() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// Whether it is still there. A zombie is.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn is_alive(&self) -> io::Result<bool> {
        match Self::of(self.pid) {
            Ok(now) => Ok(now == *self),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Holds on to it, to learn when it ends; `None` when it is gone, or in another pid namespace.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn watch(&self) -> io::Result<Option<Watched>> {
        let watched = Watched::of(self.pid)?;
        // Only now: before it was held, the number may have become another's.
        Ok(if self.is_alive()? { watched } else { None })
    }

    /// The process, with its number, through which the namespaces of a container are joined whose first process this is: itself,
    /// or the program below it where it is ours (`--init`), into which nobody but root may look. `None` when it is gone.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn entrance(&self) -> io::Result<Option<(u32, Watched)>> {
        let Some(watched) = self.watch()? else { return Ok(None) };
        match std::fs::metadata(format!("/proc/{}/ns/user", self.pid)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            _ => return Ok(Some((self.pid, watched))),
        }
        let children = match std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            children => children?,
        };
        // In the order in which they came: the program first, then orphans.
        let Some(pid) = children.split_ascii_whitespace().find_map(|pid| pid.parse().ok()) else {
            return Ok(None);
        };
        let program = Watched::of(pid)?;
        // Only now: before it was held, the number may have become another's.
        let is_child = parent(pid)? == Some(self.pid) && self.is_alive()?;
        Ok(program.filter(|_| is_child).map(|program| (pid, program)))
    }
}

/// Of whom the process with this number is a child; `None` when it is gone.
fn parent(pid: u32) -> io::Result<Option<u32>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(SRCH) => {
            Ok(None)
        }
        text => Ok(field(&text?, PARENT).and_then(|parent| parent.parse().ok())),
    }
}

/// Fields after the name (proc_pid_stat(5)), counted from that of the state.
const PARENT: usize = 1;
const START: usize = 19;

fn start_ticks(stat: &str) -> Option<u64> {
    field(stat, START)?.parse().ok()
}

/// The name, in parentheses, may hold anything.
fn field(stat: &str, number: usize) -> Option<&str> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_apart() {
        let me = ProcessId::current().unwrap();
        assert!(me.is_alive().unwrap());
        assert!(!ProcessId { start_ticks: me.start_ticks + 1, ..me }.is_alive().unwrap());
        assert!(!ProcessId { pid: u32::MAX, start_ticks: 1 }.is_alive().unwrap());
    }

    #[test]
    fn names_with_parentheses() {
        let line = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 99 100";
        assert_eq!(start_ticks(line), Some(4242));
        assert_eq!(field(line, PARENT), Some("1"));
        assert_eq!(start_ticks("7 (a) S"), None);
    }
}
