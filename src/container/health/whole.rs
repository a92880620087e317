//! The end of a check that has taken too long: with all that its program has started.
//!
//! The program is stopped first. As a subreaper it goes on to be the parent of whatever loses its own, so that nothing gets out of
//! sight while one after the other is killed.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::sys::process::{self, Child, Watched};

/// How often it is looked for what was started meanwhile, and how long between that.
const LOOKS_MAX: u32 = 200;
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What is known of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    parent: u32,
    has_ended: bool,
}

/// Kills the program of a check whose process is `check`, and all below that.
///
/// # Errors
/// What the system says of /proc; `TimedOut` when there is always something new.
pub(super) fn end_program_of(check: &Child) -> io::Result<()> {
    let Ok(check) = u32::try_from(check.pid) else { return Ok(()) };
    let mut is_stopped = false;
    for _ in 0..LOOKS_MAX {
        let table = table()?;
        // The check, who joins the container, and the program. Where that is not there yet, it will not be.
        let program =
            children(&table, check).first().and_then(|between| children(&table, *between).first().copied());
        let Some(program) = program else { return Ok(()) };
        if !is_stopped {
            signal(program, table[&program], Signal::SIGSTOP)?;
            is_stopped = true;
            continue;
        }
        let below = living_below(&table, program);
        if below.is_empty() {
            return signal(program, table[&program], Signal::SIGKILL);
        }
        for pid in below {
            signal(pid, table[&pid], Signal::SIGKILL)?;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// By a descriptor, behind which nobody else can get: the parent is asked for again.
fn signal(pid: u32, known: Row, signal: Signal) -> io::Result<()> {
    let Some(watched) = Watched::of(pid)? else { return Ok(()) };
    if row(pid).is_none_or(|row| row.parent != known.parent) {
        return Ok(());
    }
    match process::send_signal(watched.as_fd(), signal as i32) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
        sent => sent,
    }
}

fn table() -> io::Result<HashMap<u32, Row>> {
    let mut table = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        table.extend(pid.and_then(|pid| Some((pid, row(pid)?))));
    }
    Ok(table)
}

/// `None` of one that is gone.
fn row(pid: u32) -> Option<Row> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Of a line of proc_pid_stat(5). A program's name may have anything in it.
fn parse(stat: &str) -> Option<Row> {
    let mut words = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = words.next()?;
    Some(Row { parent: words.next()?.parse().ok()?, has_ended: matches!(state, "Z" | "X") })
}

fn children(table: &HashMap<u32, Row>, parent: u32) -> Vec<u32> {
    table.iter().filter(|(_, row)| row.parent == parent).map(|(pid, _)| *pid).collect()
}

fn living_below(table: &HashMap<u32, Row>, top: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut parents = vec![top];
    while let Some(parent) = parents.pop() {
        for pid in children(table, parent) {
            parents.push(pid);
            if !table[&pid].has_ended {
                found.push(pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_below_whom() {
        let lines = [
            (2, "2 (a) b) S 1 2"),
            (3, "3 (x) R 2 2"),
            (4, "4 (x) Z 3 2"),
            (5, "5 (x) T 4 2"),
            (6, "6 (x) S 1 6"),
        ];
        let table: HashMap<u32, Row> = lines.iter().map(|(pid, line)| (*pid, parse(line).unwrap())).collect();
        let mut below = living_below(&table, 2);
        below.sort_unstable();
        assert_eq!(below, [3, 5]);
        assert_eq!((children(&table, 1).len(), children(&table, 6).len()), (2, 0));
        assert!(parse("7 (x").is_none() && parse("7 (x) S").is_none());
        assert!(row(std::process::id()).is_some_and(|row| !row.has_ended && row.parent > 0));
    }
}
