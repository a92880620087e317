//! Many images, and many who name and remove them at once.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Images, write_image, write_index};
use crate::support::*;

/// As many images as nobody has, written straight into the layout.
#[test]
fn a_thousand_images() {
    let images = Images::new();
    let count = 1000;
    let entries: Vec<(String, Value, String)> = (0..count)
        .map(|number| {
            let (manifest, id) = write_image(&images.layout(), &format!("salt-{number}"), number);
            (format!("app-{:03}:v{}", number % 500, number / 500), manifest, id)
        })
        .collect();
    let named: Vec<(String, Value)> =
        entries.iter().map(|(name, what, _)| (name.clone(), what.clone())).collect();
    write_index(&images.layout(), &named);
    let form = "{{.Repository}}:{{.Tag}} {{.ID}} {{.Digest}}";
    let words = ["images", "--no-trunc", "--format", form];
    // The youngest first.
    let expected: Vec<String> = entries
        .iter()
        .rev()
        .map(|(name, what, id)| format!("{name} {id} {}", what["digest"].as_str().unwrap()))
        .collect();
    let kept = images.place.store().join("images.json");
    for round in ["read", "kept", "damaged", "kept again"] {
        if round == "damaged" {
            let mut bytes = fs::read(&kept).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&kept, bytes).unwrap();
        }
        let start = Instant::now();
        let done = images.run(&words);
        println!("{round}: {:?}", start.elapsed());
        assert!(done.ok().lines().eq(expected.iter().map(String::as_str)), "{round}");
    }
    assert_eq!(images.run(&["images", "-n", "app-007"]).ok().lines().count(), 2);
    assert_eq!(images.run(&["images", "-q", "--filter", "label=salt=salt-3"]).ok().lines().count(), 1);
    let sorted = images.run(&["images", "-n", "--sort", "repository", "--format", "{{.Repository}}"]);
    assert!(sorted.ok().lines().is_sorted());
    // One goes, the others stay known.
    images.run(&["rmi", "app-007:v1"]).ok();
    assert_eq!(images.run(&["images", "-n"]).ok().lines().count(), 999);
}

/// What many processes do at once, each with names of its own and with some that all want.
const WORK: &str = r#"
    layerfs=$1 who=$2 rounds=$3
    for round in $(seq "$rounds"); do
        "$layerfs" tag "base-$((round % 2)):1" "own-$who:$round" "all:1"
        "$layerfs" tag "own-$who:$round" "own-$who-more:$round"
        "$layerfs" untag "own-$who-more:$round" "own-$who-more:$round"
        [ $((round % 3)) = 0 ] && "$layerfs" rmi "own-$who:$round" >/dev/null
        "$layerfs" image prune -f >/dev/null
        "$layerfs" tag "temporary-$who:1" "temporary-$who:2" 2>/dev/null || :
        "$layerfs" rmi -i "temporary-$who:1" "temporary-$who:2" >/dev/null
    done
"#;

impl Images {
    /// Images that all name again, and one for each that goes meanwhile.
    fn crowd(count: usize) -> Self {
        let images = Self::new();
        let mut named = Vec::new();
        for number in 0..2 {
            named.push((
                format!("base-{number}:1"),
                write_image(&images.layout(), &format!("base {number}"), 1).0,
            ));
        }
        for who in 0..count {
            named.push((
                format!("temporary-{who}:1"),
                write_image(&images.layout(), &format!("temporary {who}"), 1).0,
            ));
        }
        write_index(&images.layout(), &named);
        images
    }

    fn worker(&self, who: usize, rounds: usize) -> Child {
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("set -e{}", WORK), "bash"]).arg(layerfs_path());
        bash.args([who.to_string(), rounds.to_string()]).env("LAYERFS_ROOT", self.place.store());
        bash.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0).spawn().unwrap()
    }
}

#[test]
fn many_processes_name_and_remove_at_once() {
    needs_judges!();
    let (count, rounds) = (6, 6);
    let images = Images::crowd(count);
    let mut workers: Vec<Child> = (0..count).map(|who| images.worker(who, rounds)).collect();
    for worker in &mut workers {
        assert!(worker.wait().unwrap().success());
    }
    let mut expected: BTreeSet<String> = ["all:1", "base-0:1", "base-1:1"].map(str::to_owned).into();
    for who in 0..count {
        expected
            .extend((1..=rounds).filter(|round| round % 3 != 0).map(|round| format!("own-{who}:{round}")));
    }
    assert_eq!(images.names_by_umoci(), expected);
    images.is_clean();
    images.is_whole("base-0:1");
    images.is_whole("all:1");
    // Of those that went nothing is left: two images of two documents, a layer each and one that both have.
    assert_eq!(images.run(&["images", "-q"]).ok().lines().count(), 2);
    assert_eq!(images.blobs().len(), 7);
}

#[test]
fn whoever_is_killed_leaves_a_whole_layout() {
    needs_judges!();
    let count = 4;
    let images = Images::crowd(count);
    let mut seed = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    for kill in 0..12 {
        let mut workers: Vec<Child> = (0..count).map(|who| images.worker(who, 100)).collect();
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        sleep(Duration::from_millis(u64::from(seed >> 16) % 400));
        for worker in &mut workers {
            let group = format!("-{}", worker.id());
            finish(Command::new("kill").args(["-9", "--", &group])).ok();
            worker.wait().unwrap();
        }
        // At once, and without a repair.
        let done = images.run(&["store", "check"]);
        assert!(done.code == 0, "kill {kill}: {done:#?}");
        assert!(images.id_by_skopeo("base-0:1").is_some() && images.id_by_skopeo("base-1:1").is_some());
    }
    images.is_whole("base-0:1");
    images.is_whole("base-1:1");
    let workers: Vec<Child> = (0..count).map(|who| images.worker(who, 3)).collect();
    assert!(workers.into_iter().all(|mut worker| worker.wait().unwrap().success()), "nothing is in the way");
}
