//! Workloads that are, or have, several processes.
//!
//! A process that is one of many has `WORKLOAD_PART`, which says which one and of how many. It says when it is ready and
//! starts when it is told to.

use std::env;
use std::io::{BufRead as _, BufReader, Read as _, Write as _, stdin};
use std::os::unix::fs::chroot;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Took;
use crate::tree::each;

const PART: &str = "WORKLOAD_PART";

fn part() -> Option<(usize, usize)> {
    let text = env::var(PART).ok()?;
    let (number, count) = text.split_once('/').unwrap();
    Some((number.parse().unwrap(), count.parse().unwrap()))
}

/// What of all this process shall work on.
pub(crate) fn own_part<T>(all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    let (number, count) = part().unwrap_or((0, 1));
    all.skip(number).step_by(count)
}

/// Returns when all are ready.
pub(crate) fn wait_for_start() {
    if part().is_some() {
        println!("ready");
        stdin().lock().read_line(&mut String::new()).unwrap();
    }
}

/// Does a workload in `count` processes at once. What is shown is what all have done until the last has ended.
pub(crate) fn run(count: usize, warm: bool, arguments: &[&str]) {
    let one = |number| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(warm.then_some("--warm")).args(arguments).env(PART, format!("{number}/{count}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut children: Vec<_> = (0..count).map(one).collect();
    let mut outputs: Vec<_> =
        children.iter_mut().map(|child| BufReader::new(child.stdout.take().unwrap())).collect();
    for output in &mut outputs {
        let mut said = String::new();
        output.read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
    }
    children.iter_mut().for_each(|child| child.stdin.take().unwrap().write_all(b"\n").unwrap());
    let (mut done, mut longest) = (0, 0.0_f64);
    for (child, output) in children.iter_mut().zip(&mut outputs) {
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success());
        let (operations, seconds) = said.trim().split_once(' ').unwrap();
        done += operations.parse::<u64>().unwrap();
        longest = longest.max(seconds.parse().unwrap());
    }
    println!("{done} {:.9}", Duration::from_secs_f64(longest).as_secs_f64());
}

/// Makes `root` the root directory; needs the right to, if only in a user namespace.
pub(crate) fn enter(root: &Path) {
    if root != Path::new("/") {
        chroot(root).unwrap();
        env::set_current_dir("/").unwrap();
    }
}

/// Runs a command `count` times, one after the other.
pub(crate) fn spawn(count: u64, command: &[&str]) -> Took {
    each(0..count, |_| {
        let done = Command::new(command[0]).args(&command[1..]).stdin(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{}: {}: {said}", command.join(" "), done.status);
    })
}
