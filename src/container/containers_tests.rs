use std::fs;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use super::removal::CREATION_MAX;
use super::*;
use crate::container::{LayerRecord, OwnVolumes, ProcessId, Source, UsedVolume};
use crate::launcher::Volume;
use crate::model::Digest;
use crate::sys::lock::soon;

fn new(name: Option<&str>) -> NewContainer {
    let image = ImageRecord {
        name: "tiny:1".into(),
        source: "oci:/x:@sha256:0".into(),
        config_digest: Digest::from_bytes([1; 32]),
        layers: vec![LayerRecord::Directory("/x".into())],
        process: crate::model::image_config::ProcessConfig::default(),
    };
    let (purpose, owners) = (Purpose::Run, Owners::Image);
    NewContainer {
        name: name.map(str::to_owned),
        image,
        purpose,
        command: vec!["sh".into()],
        owners,
        changes: crate::container::Changes::Own,
        remove_at_end: false,
        run: None,
    }
}

fn running() -> State {
    State::Running { process: ProcessId { pid: 1, start_ticks: 1 }, started: Moment::now(), cgroup: None }
}

/// Drops it, and waits for children that other tests have forked: they hold all descriptors until they execute something.
fn let_go(held: Held) {
    let lock = held.lock_path();
    drop(held);
    let since = std::time::Instant::now();
    while crate::sys::lock::is_held(&lock).unwrap() && since.elapsed().as_secs() < 30 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// How many names there are, beside the lock for giving them.
fn names_given(root: &std::path::Path) -> usize {
    let names = fs::read_dir(root.join("names")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name != ".lock").count()
}

#[test]
fn from_creation_to_removal() {
    let dir = tempfile::tempdir().unwrap();
    let all = Containers::open(dir.path()).unwrap();
    let held = all.create(new(Some("one"))).unwrap();
    let id = held.id();
    assert!(held.upper_dir().is_dir() && held.work_dir().is_dir());
    for text in ["one", &id.to_string(), &id.short(), &id.to_string()[..1]] {
        assert_eq!(all.find(text).unwrap().config(), held.config(), "{text}");
    }
    held.set_state(&running()).unwrap();
    assert!(all.find("one").unwrap().status().unwrap().is_running());
    let error = all.remove(all.find("one").unwrap()).unwrap_err().to_string();
    assert!(
        error.contains("is running") && error.contains(&id.short()) && error.contains("layerfs stop one"),
        "{error}"
    );
    let mounted = State::Mounted {
        server: ProcessId { pid: 1, start_ticks: 1 },
        mountpoint: "/m".into(),
        started: Moment::now(),
    };
    held.set_state(&mounted).unwrap();
    let error = all.remove(all.find("one").unwrap()).unwrap_err().to_string();
    assert!(error.contains("is mounted") && error.contains("layerfs umount /m"), "{error}");

    // Whoever held it dies without a word.
    let_go(held);
    let container = all.find("one").unwrap();
    let status = container.status().unwrap();
    assert!(status.is_unclean() && status.can_remove());
    assert_eq!(status.text(Moment::now()), "Exited (unclean)");
    fs::write(container.upper_dir().join("file"), "x").unwrap();
    all.remove(container).unwrap();
    assert!(matches!(all.find("one"), Err(ContainerError::NotFound(_))));
    assert!(all.list().unwrap().is_empty() && all.leftovers().unwrap().is_empty());
    assert_eq!(names_given(dir.path()), 0);
    assert_eq!(fs::read_dir(dir.path().join("containers")).unwrap().count(), 0);
    all.create(new(Some("one"))).unwrap();
}

#[test]
fn names() {
    let dir = tempfile::tempdir().unwrap();
    let all = Containers::open(dir.path()).unwrap();
    let first = all.create(new(Some("one"))).unwrap();
    let error = all.create(new(Some("one"))).unwrap_err().to_string();
    assert!(error.contains("one is in use") && error.contains(&first.id().short()), "{error}");
    let error = all.create(new(Some("../x"))).unwrap_err().to_string();
    assert!(error.contains("\"../x\" is not a container name"), "{error}");
    assert_eq!(fs::read_dir(dir.path().join("containers")).unwrap().count(), 1, "nothing is left");
    let random: Vec<Held> = (0..40).map(|_| all.create(new(None)).unwrap()).collect();
    let mut names: Vec<&str> = random.iter().map(|held| held.config().name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 40);
    assert_eq!(all.list().unwrap().len(), 41);
    // A container that somebody removed by hand gives its name back.
    fs::remove_dir_all(first.dir()).unwrap();
    drop(first);
    all.create(new(Some("one"))).unwrap();
}

#[test]
fn prefixes() {
    let dir = tempfile::tempdir().unwrap();
    let all = Containers::open(dir.path()).unwrap();
    // 17 ids have at least two with the same first digit.
    let held: Vec<Held> = (0..17).map(|_| all.create(new(None)).unwrap()).collect();
    let firsts: Vec<String> = held.iter().map(|held| held.id().to_string()[..1].to_owned()).collect();
    let twice = firsts.iter().find(|one| firsts.iter().filter(|other| other == one).count() > 1).unwrap();
    let error = all.find(twice).unwrap_err().to_string();
    assert!(error.contains("beginning of several"), "{error}");
    for text in ["", "xyz", "../..", "no-such", &"0".repeat(65)] {
        assert!(matches!(all.find(text), Err(ContainerError::NotFound(_))), "{text}");
    }
    let ids: Vec<ContainerId> = all.list().unwrap().iter().map(Container::id).collect();
    let made: Vec<ContainerId> = held.iter().rev().map(|held| held.id()).collect();
    assert_eq!(ids, made, "the youngest first");
}

#[test]
fn interrupted_creations_and_removals_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let all = Containers::open(dir.path()).unwrap();
    let held = all.create(new(Some("half"))).unwrap();
    fs::remove_file(held.dir().join("config.json")).unwrap();
    assert!(all.leftovers().unwrap().is_empty(), "still being made");
    assert!(matches!(all.create(new(Some("half"))), Err(ContainerError::NameTaken { .. })));
    let_go(held);
    let gone = all.create(new(None)).unwrap().detach(&all, OwnVolumes::Stay).unwrap();
    assert!(gone.path().exists() && all.list().unwrap().is_empty());
    drop(gone);
    let new_dir = dir.path().join("containers/.new-1");
    fs::create_dir(&new_dir).unwrap();
    // Not the young one.
    soon(|| (all.leftovers().unwrap().len() == 2).then_some(()));
    fs::File::open(&new_dir).unwrap().set_modified(SystemTime::now() - CREATION_MAX * 2).unwrap();
    let left = soon(|| all.leftovers().ok().filter(|left| left.len() == 3));
    left.iter().try_for_each(Removal::delete).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("containers")).unwrap().count(), 0);
    all.create(new(Some("half"))).unwrap();
}

#[test]
fn a_damaged_config_is_named_and_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let all = Containers::open(dir.path()).unwrap();
    let held = all.create(new(Some("one"))).unwrap();
    fs::write(held.dir().join("config.json"), "{").unwrap();
    let whole = all.create(new(Some("two"))).unwrap();
    let listed: Vec<_> = all.list().unwrap().iter().map(Container::id).collect();
    assert_eq!(listed, [whole.id()]);
    let error = all.find(&held.id().to_string()).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains(&held.id().to_string()), "{error}");
}

/// What is not flushed may be empty after a power cut.
#[test]
fn what_a_power_cut_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let all = Containers::open(dir.path()).unwrap();
    let kept = all.create(new(Some("kept"))).unwrap();
    kept.set_state(&running()).unwrap();
    let kept_dir = kept.dir().to_owned();
    let lost = all.create(NewContainer { remove_at_end: true, ..new(Some("lost")) }).unwrap();
    let lost_dir = lost.dir().to_owned();
    let_go(kept);
    let_go(lost);
    fs::write(kept_dir.join("state.json"), "").unwrap();
    fs::write(lost_dir.join("config.json"), "").unwrap();
    let listed = all.list_with_status().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].0.dir(), &listed[0].1.state), (&*kept_dir, &State::Created));
    let left = all.leftovers().unwrap();
    assert_eq!(left.iter().map(Removal::path).collect::<Vec<_>>(), [lost_dir]);
    left.iter().try_for_each(Removal::delete).unwrap();
    all.create(new(Some("lost"))).unwrap();
    // What was flushed cannot become empty so: that is damage, and its changes are not anybody's to remove.
    fs::write(kept_dir.join("config.json"), "").unwrap();
    assert!(all.leftovers().unwrap().iter().all(|left| left.path() != kept_dir));
    assert!(matches!(all.find("kept"), Err(ContainerError::Document { .. })));
}

#[test]
fn one_that_is_gone_has_no_status() {
    let dir = tempfile::tempdir().unwrap();
    let all = Containers::open(dir.path()).unwrap();
    let held = all.create(new(None)).unwrap();
    let seen = Container::clone(&held);
    held.detach(&all, OwnVolumes::Stay).unwrap().delete().unwrap();
    assert!(matches!(seen.status(), Err(ContainerError::NotFound(_))));
}

/// Many at once fight for one name: one has it at a time, and looking never waits nor disturbs.
#[test]
fn one_name_for_many() {
    let dir = tempfile::tempdir().unwrap();
    let all = Containers::open(dir.path()).unwrap();
    let holders = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    match all.create(new(Some("wanted"))) {
                        Ok(held) => {
                            use std::sync::atomic::Ordering::SeqCst;
                            assert_eq!(holders.fetch_add(1, SeqCst), 0);
                            held.set_state(&running()).unwrap();
                            assert!(all.find("wanted").unwrap().status().unwrap().is_running());
                            holders.fetch_sub(1, SeqCst);
                            held.detach(&all, OwnVolumes::Stay).unwrap().delete().unwrap();
                        }
                        Err(ContainerError::NameTaken { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                    for container in all.list().unwrap() {
                        // It may be gone by now.
                        container.status().ok();
                    }
                }
            });
        }
    });
    assert!(all.list().unwrap().is_empty() && all.leftovers().unwrap().is_empty());
    assert_eq!(names_given(dir.path()), 0);
}

/// The lock is a process's own: kill -9 gives it back.
#[test]
fn killed_holder() {
    let dir = tempfile::tempdir().unwrap();
    let all = Containers::open(dir.path()).unwrap();
    let held = all.create(new(Some("one"))).unwrap();
    held.set_state(&running()).unwrap();
    let lock = held.dir().join("lock");
    let_go(held);
    let mut holder = Command::new("flock")
        .arg(&lock)
        .args(["sh", "-c", "echo ready; exec sleep 100"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    assert!(all.find("one").unwrap().status().unwrap().is_running());
    let error = all.hold(all.find("one").unwrap()).unwrap_err();
    assert!(matches!(error, ContainerError::InUse { .. }));
    // flock(1) waits for its child, which has the descriptor too.
    let child = fs::read_to_string(format!("/proc/{0}/task/{0}/children", holder.id())).unwrap();
    assert!(Command::new("kill").args(["-9", child.trim()]).status().unwrap().success());
    holder.wait().unwrap();
    assert!(all.find("one").unwrap().status().unwrap().is_unclean());
    all.remove(all.find("one").unwrap()).unwrap();
}

#[test]
fn a_name_counts_when_link_and_config_agree() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path()).unwrap();
    let one = containers.create(new(Some("one"))).unwrap();
    let two = containers.create(new(Some("two"))).unwrap();
    let id = |name: &str| containers.find(name).map(|found| found.id()).ok();
    containers.rename("one", "first").unwrap();
    assert_eq!((id("one"), id("first")), (None, Some(one.id())));
    assert!(matches!(containers.rename("first", "two"), Err(ContainerError::NameTaken { .. })));
    assert!(matches!(containers.rename("first", "first"), Err(ContainerError::SameName(_))));
    assert!(matches!(containers.rename("first", "a/b"), Err(ContainerError::Name(_))));
    // Killed before the config was replaced, and after.
    let link = |name: &str, id: ContainerId| {
        std::os::unix::fs::symlink(format!("../containers/{id}"), dir.path().join("names").join(name))
            .unwrap();
    };
    link("early", one.id());
    link("one", one.id());
    assert_eq!((id("early"), id("one"), id("first")), (None, None, Some(one.id())));
    containers.rename("two", "early").unwrap();
    containers.rename("first", "one").unwrap();
    assert_eq!((id("early"), id("two"), id("one")), (Some(two.id()), None, Some(one.id())));
    // Who holds it has read another name, and takes back the one that it has.
    one.detach(&containers, OwnVolumes::Stay).unwrap().delete().unwrap();
    assert!(!dir.path().join("names/one").is_symlink());
    containers.rename("early", "one").unwrap();
    assert_eq!(id("one"), Some(two.id()));
}

#[test]
fn what_the_killed_have_left_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let (all, volumes) = (Containers::open(dir.path()).unwrap(), Volumes::open(dir.path()).unwrap());
    let with_volume = |name: &str| {
        let mount = Volume::new(PathBuf::new(), "/data".into());
        let mut wishes =
            Wishes { volumes: vec![UsedVolume { source: Source::Anonymous, mount }], ..Wishes::default() };
        volumes.resolve(&mut wishes.volumes).unwrap();
        let held = all.create(NewContainer { run: Some(wishes.clone()), ..new(Some(name)) }).unwrap();
        volumes.provide(&wishes.volumes, &volumes.keep().unwrap()).unwrap();
        held
    };
    // Two removals that did not come to deleting anything: one with its volume, one without.
    drop(with_volume("gone").detach(&all, OwnVolumes::Go).unwrap());
    drop(with_volume("left").detach(&all, OwnVolumes::Stay).unwrap());
    assert_eq!(volumes.list().unwrap().len(), 2);
    std::os::unix::fs::symlink(format!("../containers/{}", "a".repeat(64)), dir.path().join("names/nobody"))
        .unwrap();
    fs::create_dir(dir.path().join("volumes/.new-1")).unwrap();
    let rest = all.create(new(Some("rest"))).unwrap();
    let files = ["ctl.sock", "slirp4netns.sock", ".tmp-1-1", "log"].map(|name| rest.dir().join(name));
    files.iter().for_each(|file| fs::write(file, "").unwrap());
    let_go(rest);
    soon(|| {
        crate::container::sweeping::sweep(&all);
        (fs::read_dir(dir.path().join("containers")).unwrap().count() == 1).then_some(())
    });
    assert_eq!(files.map(|file| file.exists()), [false, false, false, true]);
    assert_eq!((names_given(dir.path()), volumes.list().unwrap().len()), (1, 1));
    soon(|| {
        volumes.sweep().unwrap();
        (!dir.path().join("volumes/.new-1").exists()).then_some(())
    });
}

/// One that is at rest is not looked at, so it is not at rest before anybody may leave something in it.
#[test]
fn what_is_left_of_changes_to_one_at_rest() {
    let dir = tempfile::tempdir().unwrap();
    let all = Containers::open(dir.path()).unwrap();
    let held = all.create(new(Some("box"))).unwrap();
    held.set_state(&State::Created).unwrap();
    let container = (*held).clone();
    let_go(held);
    let is_at_rest = || all.look_through().unwrap().restless.is_empty();
    assert!(is_at_rest());
    let by_somebody: [&dyn Fn(); 2] =
        [&|| all.rename("box", "other").unwrap(), &|| let_go(all.hold(container.clone()).unwrap())];
    for act in by_somebody {
        act();
        let left = container.dir().join(".tmp-1-1");
        fs::write(&left, "").unwrap();
        soon(|| {
            crate::container::sweeping::sweep(&all);
            is_at_rest().then_some(())
        });
        assert!(!left.exists());
        assert_eq!(container.status().unwrap().state, State::Created);
    }
}

/// Who is killed between the two leaves a name of nobody, and never a container that its name does not find.
#[test]
fn a_name_goes_after_its_container() {
    let dir = tempfile::tempdir().unwrap();
    let all = Containers::open(dir.path()).unwrap();
    let held = all.create(new(Some("one"))).unwrap();
    let failed = all.names.release_with(held.dir(), ("one", held.id()), || {
        assert!(all.find("one").is_ok());
        Err(ContainerError::NotFound("killed".into()))
    });
    assert!(failed.is_err() && all.find("one").is_ok());
}

/// As those that go by themselves when they end.
#[test]
fn who_is_gone_meanwhile_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path()).unwrap();
    let held = containers.create(new(Some("one"))).unwrap();
    held.set_state(&running()).unwrap();
    let container = (*held).clone();
    held.detach(&containers, OwnVolumes::Go).unwrap().delete().unwrap();
    assert!(matches!(container.status(), Err(ContainerError::NotFound(_))));
    crate::container::ending::end(&container, crate::container::stopping::StopWait::AsMade).unwrap();
}

#[test]
fn one_on_its_way_up_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let all = Containers::open(dir.path()).unwrap();
    let held = all.create(new(Some("one"))).unwrap();
    let container = all.find("one").unwrap();
    assert_eq!(container.status().unwrap().state, State::Created);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            held.set_state(&running()).unwrap();
        });
        assert!(container.settled_status().unwrap().is_running());
    });
    let_go(held);
    // Nobody starts it: nothing to wait for.
    let since = std::time::Instant::now();
    container.settled_status().unwrap();
    assert!(since.elapsed() < crate::container::START_WAIT);
}
