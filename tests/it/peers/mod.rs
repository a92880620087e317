//! What other union filesystems get wrong, or say that they cannot do: here it is right.
//!
//! A case is a function of a script in `tests/support`, with its own assertions. It runs on an ordinary filesystem
//! that holds the same tree first, which shows that it asks for nothing special; then in a mount. The two trees must be
//! equal at the end, and the mount's once more after a remount. The image is not changed, `work/tmp` is empty.

mod caching;
mod copy_up;
mod identity;
mod large_values;
mod open_files;
mod programs;
mod rename;
mod stacked;
mod whiteouts;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::*;

/// Tests that run a case each; and one that no case of the script is forgotten.
macro_rules! cases {
    ($script:literal: $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                needs_mount!();
                $crate::peers::case($script, stringify!($case));
            }
        )*

        #[test]
        fn every_case_is_run() {
            $crate::peers::every_case_is_run($script, &[$(stringify!($case)),*]);
        }
    };
}
use cases;

/// How a case ended.
#[derive(PartialEq, Eq)]
enum Ended {
    Done,
    /// It goes on after a remount.
    Again,
    Skipped(String),
}

/// A case being run on one tree.
struct Run<'a> {
    script: &'a str,
    case: &'a str,
    dir: PathBuf,
    state: PathBuf,
    kind: &'a str,
}

impl Run<'_> {
    #[track_caller]
    fn phase(&self, phase: u32) -> Ended {
        let mut command = Command::new("python3");
        command.arg(support_file(self.script)).arg(self.case).arg(phase.to_string());
        command.arg(&self.state).arg(self.kind).current_dir(&self.dir).env("PYTHONDONTWRITEBYTECODE", "1");
        let done = finish(&mut command);
        assert_eq!(done.code, 0, "{} on {}, phase {phase}:\n{}{}", self.case, self.kind, done.out, done.err);
        match done.out.lines().last().unwrap_or_default() {
            "again" => Ended::Again,
            line => match line.strip_prefix("skipped: ") {
                Some(why) => Ended::Skipped(why.to_owned()),
                None => Ended::Done,
            },
        }
    }
}

/// Runs a case.
fn case(script: &str, case: &str) {
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    let place = Place::new();
    finish(Command::new("python3").arg(support_file("peers_image.py")).arg(place.path(""))).ok();
    let (image, tree) = (place.path("image.tar"), place.path("tree"));
    let before = sha256(&image);
    let run = |dir, kind| {
        let state = place.path(&format!("state-{kind}"));
        Run { script, case, dir, state, kind }
    };
    let ordinary = run(tree.clone(), "ordinary");
    let mut phase = 0;
    loop {
        match ordinary.phase(phase) {
            Ended::Done => break,
            Ended::Again => phase += 1,
            Ended::Skipped(why) => skip!("{why}"),
        }
    }
    let expected = listing(&place, &tree);
    let mut mounted = place.mount(&["-o", if is_root() { "suid,dev" } else { "" }], &image);
    let id = mounted.id.clone();
    let again = |mounted: Mounted<'_>| {
        mounted.unmount();
        no_scraps(&place, &id);
        place.mount(&["--container", &id, "-o", if is_root() { "suid,dev" } else { "" }], &image)
    };
    let served = run(place.mnt(), "layerfs");
    let mut phase = 0;
    while let Ended::Again = served.phase(phase) {
        phase += 1;
        mounted = again(mounted);
    }
    let options = ["--recent", &start];
    assert_same_tree("afterwards", &options, &expected, &place.mnt());
    mounted = again(mounted);
    assert_same_tree("mounted again", &options, &expected, &place.mnt());
    mounted.unmount();
    assert_eq!(sha256(&image), before, "the image changed");
}

/// The listing of a tree, as a file.
fn listing(place: &Place, tree: &Path) -> PathBuf {
    let path = place.path("expected.tree");
    let done = finish(Command::new("python3").arg(support_file("tree.py")).arg("list").arg(tree));
    fs::write(&path, done.ok().to_owned() + "\n").unwrap();
    path
}

/// Nothing is left of what was being built.
#[track_caller]
fn no_scraps(place: &Place, id: &str) {
    let work = place.store().join("containers").join(id).join("work/tmp");
    let left: Vec<_> = fs::read_dir(&work).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, Vec::<std::ffi::OsString>::new(), "left in work/tmp");
}

fn every_case_is_run(script: &str, cases: &[&str]) {
    let text = fs::read_to_string(support_file(script)).unwrap();
    let defined = text.lines().filter_map(|line| line.strip_prefix("def ")?.strip_suffix("(t):"));
    let defined: BTreeSet<&str> = defined.filter(|name| !name.ends_with("_remounted")).collect();
    assert_eq!(defined, cases.iter().copied().collect(), "{script}");
}
