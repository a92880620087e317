//! What the first write into a large file of the image costs who writes, and who looks at other files meanwhile.
//!
//! Each stat(2) is of a file that nobody has looked at before, so that no cache of the kernel answers it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::tree::{CHUNK_BYTES, Tree};

/// How the large files are called.
const LARGE: &str = "large";
/// Those who look while nothing is written.
const IDLE: usize = 2000;
/// How long somebody looks before the write begins, so that both are under way.
const BEFORE: Duration = Duration::from_millis(2);

pub(crate) fn run(tree: &Tree) {
    let is_large = |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(LARGE);
    let (large, small): (Vec<_>, Vec<_>) = tree.files.iter().partition(is_large);
    let mut unseen = small.into_iter();
    let idle: Vec<_> = unseen.by_ref().take(IDLE).map(look).collect();
    let (mut writes, mut during) = (Vec::new(), Vec::new());
    for path in large {
        let written = AtomicBool::new(false);
        let (took, looks) = std::thread::scope(|scope| {
            let looker = scope.spawn(|| {
                let more = unseen.by_ref().take_while(|_| !written.load(Ordering::Acquire));
                more.map(|path| (Instant::now(), look(path))).collect::<Vec<_>>()
            });
            std::thread::sleep(BEFORE);
            // With the open: some copy then, others when something is written.
            let start = Instant::now();
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&[1; CHUNK_BYTES], 0).unwrap();
            let took = start.elapsed();
            written.store(true, Ordering::Release);
            let looks = looker.join().unwrap();
            (took, looks.into_iter().filter(|(at, took)| *at + *took > start).map(|(_, took)| took).collect())
        });
        let looks: Vec<Duration> = looks;
        writes.push(took);
        during.extend(looks);
    }
    for (name, all, percent) in [("write", writes, 50), ("idle", idle, 99), ("during", during, 99)] {
        println!("{name} {:.9}", quantile(all, percent).as_secs_f64());
    }
}

fn look(path: &PathBuf) -> Duration {
    let start = Instant::now();
    fs::symlink_metadata(path).unwrap();
    start.elapsed()
}

fn quantile(mut all: Vec<Duration>, percent: usize) -> Duration {
    all.sort_unstable();
    all[(all.len() - 1) * percent / 100]
}
