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
}

/// Field 22; the second one, in parentheses, may hold anything.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
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
        assert_eq!(start_ticks("7 (a) S"), None);
    }
}
