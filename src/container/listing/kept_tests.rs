use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::fs::FileType;

use super::encoding::Record;
use super::tests::{new, states};
use super::*;
use crate::container::health::{HealthCheck, OnFailure};
use crate::container::volumes::Source;
use crate::container::{Containers, Held};
use crate::launcher::Volume;
use crate::sys::lock;

/// Longer than a step of the clock of a local file system; less than [`kept::SETTLED`], which tests would wait for.
const STEP: Duration = Duration::from_millis(30);
/// Longer than anything takes on a busy machine between two looks at its clock.
const PAUSE: Duration = Duration::from_secs(1);

fn store() -> (tempfile::TempDir, Containers) {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path()).unwrap();
    (dir, containers)
}

/// Containers of all kinds, each still held.
fn all_kinds(containers: &Containers) -> Vec<Held> {
    let states = states();
    let one = |number: usize| {
        let mut new = new(number.is_multiple_of(7));
        if let Some(run) = new.run.as_mut().filter(|_| number.is_multiple_of(3)) {
            let mount = Volume::new(format!("/v{number}").into(), "/\u{e9}".into());
            run.volumes.push(UsedVolume { source: Source::Named("v".into()), mount });
            run.health = Some(HealthCheck {
                command: Vec::new(),
                interval: STEP,
                timeout: STEP,
                start_period: STEP,
                start_interval: STEP,
                retries: 1,
                on_failure: OnFailure::None,
            });
            run.network = Network::Pasta;
        }
        if number.is_multiple_of(5) {
            new.run = None;
            new.purpose = Purpose::Mount;
            new.command.clear();
        }
        let held = containers.create(new).unwrap();
        held.set_state(&states[number % states.len()]).unwrap();
        held
    };
    (0..LONG + 8).map(one).collect()
}

fn path_of(root: &Path) -> PathBuf {
    root.join("containers")
}

fn file(root: &Path) -> Option<kept::File> {
    kept::File::read(&directory(&path_of(root)).unwrap())
}

type Line = (Summary, Status, PathBuf);

fn lines(containers: &Containers, listing: Listing) -> Vec<Line> {
    let found = containers.listed(listing).unwrap();
    found.into_iter().map(|one| (one.about, one.status, one.dir)).collect()
}

/// What lists say with what is kept, and without.
fn both(root: &Path, containers: &Containers) -> [Vec<Vec<Line>>; 2] {
    let all = || [Listing::Live, Listing::Shown, Listing::Chosen].map(|one| lines(containers, one)).to_vec();
    let with = all();
    let (name, away) = (path_of(root).join(kept::NAME), root.join("away"));
    let is_there = fs::rename(&name, &away).is_ok();
    let without = all();
    if is_there {
        fs::rename(&away, &name).unwrap();
    }
    [with, without]
}

/// How many configs and how many states of the store are kept as they are now.
fn counts(root: &Path) -> (usize, usize) {
    let dir = directory(&path_of(root)).unwrap();
    let file = kept::File::read(&dir).unwrap();
    let kept = file.kept().unwrap();
    let ids = fs::read_dir(path_of(root))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let known = ids.filter_map(|id| Some((kept.record(&ContainerId::parse(&id)?)?, id)));
    known.fold((0, 0), |(configs, states), (record, id)| {
        let seen = |name: &str| Seen::at(&dir, &format!("{id}/{name}")).map(|seen| seen.identity);
        let config = seen(documents::CONFIG).and_then(|it| record.summary(&it, kept.texts()));
        let state = seen(documents::STATE).and_then(|it| record.state(&it));
        (configs + usize::from(config.is_some()), states + usize::from(state.is_some()))
    })
}

#[test]
fn the_same_with_what_is_kept() {
    let (root, containers) = store();
    let held = all_kinds(&containers);
    std::thread::sleep(STEP);
    keeping::keep(&path_of(root.path()), STEP / 2).unwrap();
    let at_rest = held.iter().enumerate().filter(|(at, _)| matches!(at % 5, 0 | 4) && at % 7 != 0).count();
    assert_eq!(counts(root.path()), (held.len(), at_rest));
    let [with, without] = both(root.path(), &containers);
    assert_eq!((with[1].len(), &with), (held.len(), &without));
    drop(held);
    lock::soon(|| lines(&containers, Listing::Chosen).iter().all(|line| !line.1.held).then_some(()));
    let [with, without] = both(root.path(), &containers);
    assert_eq!(with, without);
    assert!(with[1].iter().all(|line| !line.1.held));
    assert_eq!(
        fs::read_dir(path_of(root.path())).unwrap().count(),
        // And what is kept, and its lock.
        with[1].len() + 2,
        "no temporary file stays"
    );
}

/// The number of an inode is used again at once, and a clock goes in steps.
#[test]
fn what_has_just_changed_is_not_kept() {
    let (root, containers) = store();
    let held = all_kinds(&containers);
    keeping::keep(&path_of(root.path()), Duration::from_secs(3600)).unwrap();
    assert_eq!(counts(root.path()), (0, 0));
    std::thread::sleep(PAUSE);
    let since = Instant::now();
    held[4].set_state(&states()[0]).unwrap();
    keeping::keep(&path_of(root.path()), since.elapsed() + PAUSE / 2).unwrap();
    let (configs, before) = counts(root.path());
    assert_eq!(configs, held.len());
    // Only that one, as soon as it is as old as the others.
    std::thread::sleep(STEP);
    keeping::keep(&path_of(root.path()), STEP / 2).unwrap();
    assert_eq!(counts(root.path()), (configs, before + 1));
    held[9].set_state(&states()[0]).unwrap();
    containers.rename(&held[8].id().to_string(), "another").unwrap();
    assert_eq!(counts(root.path()), (configs - 1, before));
    let [with, without] = both(root.path(), &containers);
    assert_eq!(with, without);
}

/// A change of one of the containers, or of what is kept of them.
#[derive(Clone, Copy, Debug)]
enum Step {
    State(usize, usize),
    Rename(usize, u16),
    Damage(usize),
    Empty(usize),
    Forget(usize),
    Drop(usize),
    Keep,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..LONG + 8;
    prop_oneof![
        6 => (which.clone(), 0..5usize).prop_map(|(one, state)| Step::State(one, state)),
        2 => (which.clone(), any::<u16>()).prop_map(|(one, name)| Step::Rename(one, name)),
        1 => which.clone().prop_map(Step::Damage),
        1 => which.clone().prop_map(Step::Empty),
        1 => which.clone().prop_map(Step::Forget),
        1 => which.prop_map(Step::Drop),
        4 => Just(Step::Keep),
        2 => Just(Step::Wait),
    ]
}

fn take(step: Step, root: &Path, containers: &Containers, held: &mut [Option<Held>]) {
    let dir = |one: usize| held[one].as_ref().map(|held| held.dir().to_owned());
    match step {
        Step::State(one, state) => {
            // One that is damaged or gone may refuse.
            held[one].iter().for_each(|held| held.set_state(&states()[state]).unwrap_or_default());
        }
        Step::Rename(one, name) => {
            let id = held[one].as_ref().map(|held| held.id().to_string());
            id.iter().for_each(|id| containers.rename(id, &format!("n{name}")).unwrap_or_default());
        }
        Step::Damage(one) => {
            dir(one).iter().for_each(|dir| fs::write(dir.join(documents::CONFIG), "{").unwrap())
        }
        Step::Empty(one) => {
            for state in dir(one).iter().map(|dir| dir.join(documents::STATE)) {
                fs::remove_file(&state).unwrap_or_default();
                fs::write(&state, "").unwrap();
                fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
            }
        }
        Step::Forget(one) => {
            dir(one).iter().for_each(|dir| fs::remove_file(dir.join(documents::STATE)).unwrap_or_default());
        }
        Step::Drop(one) => {
            if let Some(held) = held[one].take() {
                let id = held.id();
                drop(held);
                let path = path_of(root).join(id.to_string()).join("lock");
                lock::soon(|| (!lock::is_held(&path).unwrap()).then_some(()));
            }
        }
        Step::Keep => keeping::keep(&path_of(root), STEP / 2).unwrap(),
        Step::Wait => std::thread::sleep(STEP),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_whatever_happens(steps in prop::collection::vec(step(), 20..60)) {
        let (root, containers) = store();
        let mut held: Vec<Option<Held>> = all_kinds(&containers).into_iter().map(Some).collect();
        for step in steps {
            take(step, root.path(), &containers, &mut held);
            let [with, without] = both(root.path(), &containers);
            prop_assert_eq!(with, without);
        }
    }
}

/// The bytes of a small file.
fn bytes(root: &Path, containers: &Containers) -> Vec<u8> {
    let held: Vec<Held> = states().iter().map(|_| containers.create(new(false)).unwrap()).collect();
    held.iter().zip(states()).for_each(|(held, state)| held.set_state(&state).unwrap());
    std::thread::sleep(STEP);
    keeping::keep(&path_of(root), STEP / 2).unwrap();
    fs::read(path_of(root).join(kept::NAME)).unwrap()
}

#[test]
fn a_damaged_file_is_none() {
    let (root, containers) = store();
    let whole = bytes(root.path(), &containers);
    let name = path_of(root.path()).join(kept::NAME);
    assert!(file(root.path()).is_some());
    let is_none = |bytes: &[u8]| {
        fs::write(&name, bytes).unwrap();
        file(root.path()).is_none()
    };
    for length in 0..whole.len() {
        assert!(is_none(&whole[..length]), "cut to {length}");
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        assert!(is_none(&bytes), "byte {at}");
    }
    assert!(is_none(&[&whole[..], &[0]].concat()) && !is_none(&whole));
    // And nobody waits for what is none.
    fs::remove_file(&name).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(file(root.path()).is_none());
    fs::remove_file(&name).unwrap();
    fs::create_dir(&name).unwrap();
    assert!(file(root.path()).is_none());
    assert!(keeping::keep(&path_of(root.path()), STEP).is_err());
    assert_eq!(lines(&containers, Listing::Shown).len(), 5);
    let names = fs::read_dir(path_of(root.path())).unwrap();
    assert_eq!(names.count(), 5 + 2, "what cannot be published is removed");
    assert_eq!(keeping::keep(&root.path().join("none"), STEP).unwrap_err().kind(), ErrorKind::NotFound);
}

/// Whatever its bytes say, a record is read within them.
#[test]
fn a_record_that_lies() {
    let (root, containers) = store();
    bytes(root.path(), &containers);
    let file = file(root.path()).unwrap();
    let kept = file.kept().unwrap();
    let ids = containers.list().unwrap();
    for id in ids.iter().map(crate::container::Container::id) {
        let whole = *kept.record(&id).unwrap();
        for at in 0..size_of::<Record>() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut record = whole;
                zerocopy::IntoBytes::as_mut_bytes(&mut record)[at] = value;
                let (config, state) = record.documents();
                for texts in [kept.texts(), &[], &[0xff; 64]] {
                    record.summary(&config, texts);
                }
                record.state(&state);
            }
        }
    }
}

#[test]
fn what_a_killed_writer_leaves() {
    let (root, containers) = store();
    let left = path_of(root.path()).join(".tmp-1-0");
    fs::write(&left, "x").unwrap();
    crate::container::sweeping::sweep(&containers);
    assert!(left.exists(), "somebody may be writing it");
    let old = SystemTime::now() - Duration::from_secs(7200);
    fs::File::options().write(true).open(&left).unwrap().set_modified(old).unwrap();
    crate::container::sweeping::sweep(&containers);
    assert!(!left.exists());
}
