//! Whoever is killed of a container's processes: what is said of it is true at once, it can be started and removed, and
//! nothing is left. `tests/support/kills.py` says more.
//!
//! `LAYERFS_KILLS` is how many are killed (60 unless set; 1,000 take some minutes), `LAYERFS_TEST_SEED` which.

use std::process::Command;

use crate::support::*;

#[test]
fn whoever_is_killed() {
    needs_mount!();
    let place = Place::new();
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |number| number.parse().unwrap());
    let kills = number("LAYERFS_KILLS", 60).to_string();
    let seed = u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos());
    let seed = number("LAYERFS_TEST_SEED", seed).to_string();
    let mut kill = Command::new("python3");
    kill.arg(support_file("kills.py")).arg(layerfs_path()).arg(place.path(""));
    kill.arg(image("tiny").join("docker-gzip.tar")).args([kills, seed]);
    // Others may be at work on this machine as well; by hand it is a tenth of that.
    kill.env("LAYERFS_KILLS_MILLISECONDS", "10000");
    let done = finish(&mut kill);
    println!("{}", done.out);
    assert_eq!(done.code, 0, "{done:#?}");
    place.nothing_left();
}
