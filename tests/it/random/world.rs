//! One script from beginning to end: an image, a mount of it, an oracle beside it, and the workers.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::script::Script;
use super::workers::Workers;
use crate::support::*;

/// How long a server may take to begin or to end.
const SERVER_SECONDS_MAX: Duration = Duration::from_secs(120);

/// What went wrong, and where.
pub(super) struct Failure {
    /// Number of the step; the number of steps when it was seen at the end.
    pub(super) step: usize,
    line: String,
    what: String,
    /// What the servers said last.
    log: String,
}

impl Failure {
    fn new(step: usize, line: &str, what: String) -> Self {
        Self { step, line: line.to_owned(), what, log: String::new() }
    }

    /// Whether two failures are probably the same defect: seen by the same operation, or by looking at the tree.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.verb() == other.verb()
    }

    fn verb(&self) -> &str {
        match self.line.as_str() {
            "the end" | "check" => "check",
            line => line.split(' ').find(|word| word.len() > 1).unwrap_or(line),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {}: {}\n{}", self.step, self.line, self.what, self.log)
    }
}

/// A place for one script after the other.
pub(super) struct World {
    place: Place,
    workers: Workers,
    /// The lines of the image that lies there.
    image: Vec<String>,
    /// What it is mounted with besides.
    option: Option<&'static str>,
    server: Option<Child>,
}

impl World {
    pub(super) fn new() -> Self {
        Self { place: Place::new(), workers: Workers::new(), image: Vec::new(), option: None, server: None }
    }

    /// Does all that a script says.
    pub(super) fn run(&mut self, script: &Script) -> Result<(), Failure> {
        remove(&self.place.path("log"));
        let result = self.begin(script).and_then(|()| self.steps(script));
        let ended = self.end(result.is_ok());
        let last = |what: String| Failure::new(script.steps.len(), "the end", what);
        if result.is_err() || ended.is_err() {
            self.start_afresh();
        }
        let log = self.log();
        result.and(ended.map_err(last)).map_err(|failure| Failure { log, ..failure })
    }

    fn begin(&mut self, script: &Script) -> Result<(), Failure> {
        let at_start = |what: String| Failure::new(0, "the beginning", what);
        self.make_trees(script).map_err(at_start)?;
        self.option = script.option();
        self.mount().map_err(at_start)?;
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let (mnt, oracle) = (self.place.mnt(), self.place.path("oracle"));
        let begin = |worker| {
            let user = if worker == 2 && is_root() { script.user() } else { "0" };
            format!("begin {} {} {start} {user}", mnt.display(), oracle.display())
        };
        self.workers.ask_all(begin).map_err(at_start)?;
        self.workers.ask(0, "check").map_err(at_start)
    }

    fn make_trees(&mut self, script: &Script) -> Result<(), String> {
        let written = self.place.path("image.script");
        fs::write(&written, script.image.join("\n")).unwrap();
        let image = self.image();
        let known = self.image == script.image;
        if !known {
            remove(&image);
            remove(&self.place.store());
        }
        let image = if known { Path::new("-") } else { &image };
        let oracle = self.place.path("oracle");
        let command = format!("image {} {} {}", written.display(), image.display(), oracle.display());
        self.workers.ask(0, &command)?;
        self.image.clone_from(&script.image);
        Ok(())
    }

    /// A directory or a file: what is in it says which.
    fn image(&self) -> PathBuf {
        self.place.path("image")
    }

    fn steps(&mut self, script: &Script) -> Result<(), Failure> {
        let steps = &script.steps;
        let mut step = 0;
        while step < steps.len() {
            let together = steps[step..].iter().take_while(|line| line.starts_with('|')).count();
            let failed = |what| Failure::new(step, &steps[step], what);
            if together > 0 {
                let commands: Vec<_> =
                    steps[step..step + together].iter().map(|line| command(&line[2..])).collect();
                self.workers.ask_together(&commands).map_err(failed)?;
                step += together;
                continue;
            }
            self.step(&steps[step]).map_err(failed)?;
            step += 1;
        }
        Ok(())
    }

    fn step(&mut self, line: &str) -> Result<(), String> {
        if line == "check" {
            return self.workers.ask(0, "check");
        }
        if line == "remount" {
            return self.remount();
        }
        if line == "kill" {
            return self.kill();
        }
        if let Some(rest) = line.strip_prefix("race ") {
            let (path, count) = rest.split_once(' ').unwrap();
            self.workers.ask_all(|_| "home".to_owned())?;
            self.workers.ask_all(|worker| format!("appends {path} {worker} {count}"))?;
            return self.workers.ask(0, &format!("records {path}"));
        }
        let (worker, line) = command(line);
        self.workers.ask(worker, &line)
    }

    /// Everything is compared, then again after a remount, which reads all from disk.
    fn end(&mut self, good: bool) -> Result<(), String> {
        if good {
            self.workers.ask(0, "check")?;
            self.remount()?;
            self.workers.ask(0, "check")?;
        }
        self.workers.ask_all(|_| "end".to_owned())?;
        self.unmount()?;
        remove(&self.place.path("oracle"));
        remove(&self.place.path("changes"));
        Ok(())
    }

    /// After a failure nothing is trusted.
    fn start_afresh(&mut self) {
        self.workers = Workers::new();
        self.kill_server();
        remove(&self.place.path("oracle"));
        remove(&self.place.path("changes"));
    }

    fn remount(&mut self) -> Result<(), String> {
        self.workers.ask_all(|_| "drop".to_owned())?;
        self.unmount()?;
        self.mount()?;
        self.workers.ask_all(|_| "again".to_owned())
    }

    /// Kills the server. Nothing is flushed before: what a program was told is done is in the upper. Only what was
    /// written into a mapping needs the kernel to hand it over, and with `writeback` the close.
    fn kill(&mut self) -> Result<(), String> {
        let before = if self.option == Some("writeback") { "drop" } else { "unmap-all" };
        self.workers.ask_all(|_| before.to_owned())?;
        self.kill_server();
        self.workers.ask_all(|_| "drop".to_owned())?;
        self.mount()?;
        self.workers.ask_all(|_| "again".to_owned())
    }

    fn mount(&mut self) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(self.place.path("log")).unwrap();
        let mut command = self.place.command();
        command.args(["mount", "--foreground", "--upper"]).arg(self.place.path("changes"));
        if is_root() {
            // As the users that workers act as need it.
            command.args(["-o", "suid,dev"]);
        }
        if let Some(option) = self.option {
            command.args(["-o", option]);
        }
        command.arg(self.image()).arg(self.place.mnt());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let start = Instant::now();
        while !is_mounted(&self.place.mnt()) {
            if child.try_wait().unwrap().is_some() || start.elapsed() > SERVER_SECONDS_MAX {
                self.server = Some(child);
                return Err(format!("not mounted: {}", self.log()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.server = Some(child);
        // Answered after the handshake: a mount that is taken away before was never served.
        self.place.mnt().metadata().map_err(|error| format!("mounted, but not served: {error}"))?;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        let (program, options): (_, &[&str]) =
            if is_root() { ("umount", &[]) } else { ("fusermount3", &["-u"]) };
        let done = finish(Command::new(program).args(options).arg(self.place.mnt()));
        if done.code != 0 {
            return Err(format!("{program}: {}", done.err));
        }
        let Some(mut child) = self.server.take() else { return Ok(()) };
        let start = Instant::now();
        while start.elapsed() < SERVER_SECONDS_MAX {
            match child.try_wait().unwrap() {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("the server: {status}: {}", self.log())),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        self.server = Some(child);
        Err("the server does not end after the unmount".to_owned())
    }

    fn kill_server(&mut self) {
        if let Some(mut child) = self.server.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        force_unmount(&self.place.mnt());
    }

    /// What servers said last.
    fn log(&self) -> String {
        let text = fs::read_to_string(self.place.path("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill_server();
    }
}

/// The worker of a line, and what it is told.
fn command(line: &str) -> (usize, String) {
    let (worker, command) = line.split_once(' ').unwrap();
    (worker.parse().unwrap(), command.to_owned())
}

/// Removes whatever is there; directories that not even their owner may write are opened before.
fn remove(path: &Path) {
    let Ok(found) = fs::symlink_metadata(path) else { return };
    if !found.is_dir() {
        fs::remove_file(path).unwrap();
    } else if is_root() {
        fs::remove_dir_all(path).unwrap();
    } else {
        shell("chmod -R u+rwX -- \"$1\" && rm -rf -- \"$1\"", &[path]).ok();
    }
}
