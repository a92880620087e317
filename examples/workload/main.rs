//! One workload, timed.
//!
//! `workload [--warm] NAME DIR [PATHS]` does NAME on a directory tree and prints operations and seconds. PATHS names the
//! objects of the tree, one in a line, regular files with an `f` and a space before, all others with a `-`: so what is
//! measured does not list the tree first. `--warm` does it twice before. What writes does so in DIR/bench.
//!
//! `workload [--warm] processes COUNT NAME DIR PATHS` does it in so many processes at once, each with its part of PATHS.
//!
//! `workload [--warm] spawn ROOT COUNT COMMAND...` runs a command so often, with ROOT as its root directory.
//!
//! `workload stall DIR PATHS` prints what a first write costs it and others, in seconds, one figure in a line.

// A command of its own, so it may print, and fails by panicking.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a program for developers")]

mod mapping;
mod processes;
mod reading;
mod stall;
mod tree;
mod writing;

use std::path::Path;
use std::time::Duration;

use tree::Tree;

/// How many operations took how long.
type Took = (u64, Duration);

/// A workload: what it is called, and what it does.
type Workload = (&'static str, fn(&Tree) -> Took);

/// What is shown each time, done thrice if it is to be warm.
fn timed(warm: bool, mut work: impl FnMut() -> Took) {
    if warm {
        // Twice: reading a directory invalidates its time of access, so the first fstat(2) afterwards asks the server again.
        (0..2).for_each(|_| _ = work());
    }
    processes::wait_for_start();
    let (count, took) = work();
    println!("{count} {:.9}", took.as_secs_f64());
}

fn workload(name: &str) -> fn(&Tree) -> Took {
    let mut all = [reading::ALL, writing::ALL, mapping::ALL].into_iter().flatten();
    let Some((_, work)) = all.find(|(known, _)| *known == name) else {
        panic!("no workload is called {name}")
    };
    *work
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let warm = words.first() == Some(&"--warm");
    if warm {
        words.remove(0);
    }
    match words[..] {
        ["processes", count, name, dir, list] => {
            processes::run(count.parse().unwrap(), warm, &[name, dir, list]);
        }
        ["spawn", root, count, ref command @ ..] => {
            processes::enter(Path::new(root));
            timed(warm, || processes::spawn(count.parse().unwrap(), command));
        }
        ["stall", dir, list] => stall::run(&Tree::new(Path::new(dir), Some(list))),
        [name, dir, ref list @ ..] => {
            let (tree, work) = (Tree::new(Path::new(dir), list.first().copied()), workload(name));
            timed(warm, || work(&tree));
        }
        _ => panic!("workload [--warm] NAME DIR [PATHS]"),
    }
}
