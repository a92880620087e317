//! The processes that act: each does what it is told upon both trees and compares.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::support_file;

/// How many there are.
pub(super) const WORKERS: usize = 3;
/// After that long something hangs.
const ANSWER_SECONDS_MAX: Duration = Duration::from_secs(120);

/// One process; ended with this value.
struct Worker {
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<String>,
}

/// All of them.
pub(super) struct Workers(Vec<Worker>);

impl Workers {
    pub(super) fn new() -> Self {
        Self((0..WORKERS).map(|_| Worker::new()).collect())
    }

    /// What a worker says to a command; an error when it found a difference, or nothing was heard of it.
    pub(super) fn ask(&mut self, worker: usize, command: &str) -> Result<(), String> {
        self.0[worker].tell(command)?;
        self.0[worker].hear()
    }

    /// Every worker's `command`, at the same time.
    pub(super) fn ask_all(&mut self, command: impl Fn(usize) -> String) -> Result<(), String> {
        let commands: Vec<_> = (0..WORKERS).map(|worker| (worker, command(worker))).collect();
        self.ask_together(&commands)
    }

    /// Hands all commands out before any answer is waited for.
    pub(super) fn ask_together(&mut self, commands: &[(usize, String)]) -> Result<(), String> {
        for (worker, command) in commands {
            self.0[*worker].tell(command)?;
        }
        let mut result = Ok(());
        for (worker, command) in commands {
            let heard = self.0[*worker].hear().map_err(|what| format!("{worker} {command}: {what}"));
            result = result.and(heard);
        }
        result
    }
}

impl Worker {
    fn new() -> Self {
        let mut command = Command::new("python3");
        command.arg("-B").arg(support_file("random_worker.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, stdin, answers }
    }

    fn tell(&mut self, command: &str) -> Result<(), String> {
        writeln!(self.stdin, "{command}").map_err(|error| format!("the worker is gone: {error}"))
    }

    fn hear(&mut self) -> Result<(), String> {
        match self.answers.recv_timeout(ANSWER_SECONDS_MAX) {
            Ok(answer) if answer.starts_with('=') => Ok(()),
            Ok(answer) => Err(answer),
            Err(error) => Err(format!("no answer: {error}")),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            println!("worker: {error}");
        }
    }
}
