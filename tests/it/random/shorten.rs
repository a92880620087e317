//! Makes a failing script short: leaves lines out for as long as it goes on to fail.

use std::time::{Duration, Instant};

use super::script::Script;
use super::world::{Failure, World};

/// Longer than that nobody waits for a shorter script.
const SECONDS_MAX: Duration = Duration::from_secs(60);

/// The shortest script found that fails in the same way.
pub(super) fn shorten(world: &mut World, script: &Script, failure: &Failure) -> Script {
    let start = Instant::now();
    let mut fails = |candidate: &Script| {
        let in_time = start.elapsed() < SECONDS_MAX;
        in_time && world.run(candidate).is_err_and(|another| another.is_like(failure))
    };
    let mut best = script.clone();
    loop {
        let before = best.clone();
        for part in [Part::Steps, Part::Image] {
            let mut size = part.of(&mut best).len();
            while size > 0 {
                size = leave_out(&mut best, part, size, &mut fails);
            }
        }
        if best == before || start.elapsed() >= SECONDS_MAX {
            return best;
        }
    }
}

/// Which lines.
#[derive(Clone, Copy)]
enum Part {
    Steps,
    Image,
}

impl Part {
    fn of(self, script: &mut Script) -> &mut Vec<String> {
        match self {
            Self::Steps => &mut script.steps,
            Self::Image => &mut script.image,
        }
    }
}

/// Tries without each stretch of `size` lines; returns the size to try next.
fn leave_out(best: &mut Script, part: Part, size: usize, fails: &mut impl FnMut(&Script) -> bool) -> usize {
    let mut at = 0;
    while at < part.of(best).len() {
        let mut candidate = best.clone();
        let lines = part.of(&mut candidate);
        let end = (at + size).min(lines.len());
        if !lines[at..end].iter().any(|line| is_needed(line)) {
            lines.drain(at..end);
        }
        if candidate != *best && fails(&candidate) {
            *best = candidate;
        } else {
            at += size;
        }
    }
    size / 2
}

/// Without these there is nothing to mount.
fn is_needed(line: &str) -> bool {
    line == "layer" || line.starts_with("image ") || line.starts_with("dir . ")
}
