//! Long lists, of which the store keeps what they read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::containers::{All, tiny};
use crate::support::*;

/// More than the shortest list of which something is kept.
const COUNT: usize = 40;
/// Longer than what has just changed is not kept.
const SETTLED: Duration = Duration::from_millis(2300);

struct Lists {
    all: All,
    kept: PathBuf,
}

impl Lists {
    /// Many containers that nothing has run in, called `c0`, `c1`, and so on.
    fn new() -> Self {
        let all = All::new();
        let image = tiny();
        for number in 0..COUNT {
            let name = format!("c{number}");
            let words = ["create", "--name", &name, image.to_str().unwrap(), "true"];
            assert_eq!(all.layerfs(&words).code, 0);
        }
        let kept = all.place.store().join("containers/.listed");
        Self { all, kept }
    }

    /// Name and state of each, the youngest first.
    #[track_caller]
    fn list(&self) -> Vec<String> {
        let words = ["ps", "-a", "--format", "{{.Names}} {{.State}} {{.ExitCode}}"];
        self.all.layerfs(&words).ok().lines().map(str::to_owned).collect()
    }

    /// The same with what is kept, and without.
    #[track_caller]
    fn both(&self) -> Vec<String> {
        let with = self.list();
        let bytes = fs::read(&self.kept).unwrap();
        fs::write(&self.kept, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(self.list(), with);
        fs::write(&self.kept, bytes).unwrap();
        assert_eq!(self.list(), with);
        with
    }
}

#[test]
fn what_a_long_list_reads_is_kept_for_the_next() {
    needs_mount!();
    let lists = Lists::new();
    thread::sleep(SETTLED);
    assert!(!lists.kept.exists());
    let expected: Vec<String> = (0..COUNT).rev().map(|number| format!("c{number} created 0")).collect();
    assert_eq!(lists.list(), expected);
    assert!(eventually(|| lists.kept.exists()), "nobody waits for it, but it comes");
    assert_eq!(lists.both(), expected);
    let image = tiny();
    assert_eq!(lists.all.layerfs(&["start", "-a", "c1"]).code, 0);
    assert_eq!(lists.all.layerfs(&["rename", "c2", "other"]).code, 0);
    assert_eq!(lists.all.layerfs(&["rm", "c3"]).code, 0);
    let words = ["run", "-d", "--name", "runs", image.to_str().unwrap(), "sleep", "1000"];
    assert_eq!(lists.all.layerfs(&words).code, 0);
    let mut expected = expected;
    expected.retain(|line| !line.starts_with("c3 "));
    expected.insert(0, "runs running 0".to_owned());
    for line in &mut expected {
        match line.as_str() {
            "c1 created 0" => "c1 exited 0".clone_into(line),
            "c2 created 0" => "other created 0".clone_into(line),
            _ => {}
        }
    }
    assert_eq!(lists.both(), expected);
    assert_eq!(lists.all.layerfs(&["rm", "-f", "runs"]).code, 0);
    assert_eq!(lists.both(), expected[1..]);
}

/// A list is told where nothing can be kept.
#[test]
fn where_nothing_can_be_written() {
    if is_root() {
        skip!("root may write everywhere");
    }
    let lists = Lists::new();
    thread::sleep(SETTLED);
    let dir = lists.kept.parent().unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o500)).unwrap();
    let listed = [lists.list(), lists.list()];
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(listed.iter().all(|list| list.len() == COUNT), "{listed:?}");
    assert!(!lists.kept.exists());
}
