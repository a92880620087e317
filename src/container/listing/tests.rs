use std::fs;

use super::*;
use crate::container::{Changes, Containers, Held, ImageRecord, NewContainer, Owners, ProcessId, Wishes};
use crate::model::image_config::ProcessConfig;

pub(super) fn new(remove_at_end: bool) -> NewContainer {
    let labels = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    NewContainer {
        name: None,
        image: ImageRecord {
            name: "tiny:1".into(),
            source: "oci:/x:@sha256:0".into(),
            config_digest: Digest::from_bytes([1; 32]),
            layers: Vec::new(),
            process: ProcessConfig {
                labels: labels(&[("a", "image"), ("b", "image")]),
                ..ProcessConfig::default()
            },
        },
        purpose: Purpose::Run,
        command: vec!["sh".into(), "\u{e9}\"".into()],
        owners: Owners::Image,
        changes: Changes::Own,
        remove_at_end,
        run: Some(Wishes { labels: labels(&[("a", "user")]), network: Network::Host, ..Wishes::default() }),
    }
}

pub(super) fn states() -> [State; 5] {
    let (started, process) = (Moment::from_seconds(1), ProcessId { pid: 1, start_ticks: 1 });
    [
        State::Created,
        State::Running { process, started, cgroup: None },
        State::Mounted { server: process, mountpoint: "/m".into(), started },
        State::Restarting { waits: process, exit_code: 1, started, finished: started },
        State::Exited { exit_code: 1, started, finished: started, oom_killed: false },
    ]
}

fn made(containers: &Containers, state: &State, remove_at_end: bool) -> Held {
    let held = containers.create(new(remove_at_end)).unwrap();
    held.set_state(state).unwrap();
    held
}

#[test]
fn what_a_config_says() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path()).unwrap();
    let held = containers.create(new(false)).unwrap();
    let (listed, config) = (&containers.listed(Listing::Shown).unwrap()[0], held.config());
    let about = &listed.about;
    assert_eq!((about.id, &about.name, about.created), (config.id, &config.name, config.created));
    assert_eq!(
        (&about.image.name, about.image.config_digest),
        (&config.image.name, config.image.config_digest)
    );
    assert_eq!((about.purpose, &about.command), (config.purpose, &config.command));
    assert_eq!((about.labels(), about.network()), (config.labels(), Some(&Network::Host)));
    assert!(!about.remove_at_end && !about.has_health() && about.volumes().next().is_none());
    assert_eq!((&*listed.dir, &listed.status.state), (held.dir(), &State::Created));
}

/// Whoever holds locks: nothing waits for them.
#[test]
fn who_is_asked_for_what() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path()).unwrap();
    let _ids = containers.lock_ids().unwrap();
    let held: Vec<Held> = states().iter().map(|state| made(&containers, state, false)).collect();
    let listed = |listing| {
        let mut found = containers.listed(listing).unwrap();
        found.reverse();
        found.into_iter().map(|one| (one.status.state, one.status.held)).collect::<Vec<_>>()
    };
    let all = |held: [bool; 5]| states().into_iter().zip(held).collect::<Vec<_>>();
    assert_eq!(listed(Listing::Chosen), all([true; 5]));
    assert_eq!(listed(Listing::Shown), all([false, true, true, true, false]));
    assert_eq!(listed(Listing::Live), all([true; 5])[1..4]);
    drop(held);
    crate::sys::lock::soon(|| (listed(Listing::Chosen) == all([false; 5])).then_some(()));
    assert_eq!(listed(Listing::Shown), all([false; 5]));
    assert_eq!(listed(Listing::Live), all([false; 5])[1..4]);
}

#[test]
fn many_and_large_ones() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path()).unwrap();
    let one = containers.create(new(false)).unwrap();
    let config = fs::read_to_string(one.dir().join(documents::CONFIG)).unwrap();
    let mut ids = vec![one.id().to_string()];
    for number in 0..200 {
        let id = format!("{number:064}");
        let dir = dir.path().join("containers").join(&id);
        fs::create_dir(&dir).unwrap();
        // Longer and longer, up to several times what is read at once.
        let name = format!("n{}", "x".repeat(number * 100));
        let config = config.replace(&one.id().to_string(), &id).replace(&one.config().name, &name);
        fs::write(dir.join(documents::CONFIG), config).unwrap();
        ids.push(id);
    }
    let damaged = dir.path().join("containers").join("f".repeat(64));
    fs::create_dir(&damaged).unwrap();
    fs::write(damaged.join(documents::CONFIG), "{").unwrap();
    let found = containers.listed(Listing::Shown).unwrap();
    let singly: Vec<Summary> = containers
        .list()
        .unwrap()
        .iter()
        .map(|one| {
            read(one.dir().parent().unwrap(), &[one.id().to_string()], Listing::Shown)
                .unwrap()
                .0
                .remove(0)
                .about
        })
        .collect();
    assert_eq!(found.len(), ids.len());
    assert_eq!(found.into_iter().map(|one| one.about).collect::<Vec<_>>(), singly);
}

/// What a start passes over has nothing that it would have to take up.
#[test]
fn what_is_at_rest() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path()).unwrap();
    let restless = |held: &Held| containers.look_through().unwrap().restless.contains(&held.id().to_string());
    for state in states() {
        assert_eq!(restless(&made(&containers, &state, false)), state.is_live(), "{state:?}");
        assert!(restless(&made(&containers, &state, true)), "{state:?}");
    }
    let unwritten = containers.create(new(false)).unwrap();
    assert!(restless(&unwritten));
    unwritten.set_state(&states()[4]).unwrap();
    assert!(!restless(&unwritten));
    // Started again; and as an earlier version, or a copy that lost its mode, has it.
    unwritten.set_state(&states()[1]).unwrap();
    assert!(restless(&unwritten));
    unwritten.set_state(&states()[4]).unwrap();
    let path = unwritten.dir().join(documents::STATE);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(restless(&unwritten));
    // A power cut may empty what was not flushed.
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    assert!(restless(&unwritten));
}
