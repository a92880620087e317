//! What `layerfs stats` tells of a mount, against what was done in it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use serde_json::Value;

use crate::support::*;

const ATTRIBUTE: &str = "system.layerfs.stats";
const GRANULE_BYTES: u64 = 128 << 10;
/// The one that Debian's packages are for.
const PYTHON: &str = "/usr/bin/python3";
/// A file of the image that has many granules.
const DATA: &str = "usr/share/data";

/// `layerfs stats --json OF`
#[track_caller]
fn stats(place: &Place, of: impl AsRef<OsStr>) -> Value {
    let done = place.layerfs(&[OsStr::new("stats"), OsStr::new("--json"), of.as_ref()]);
    serde_json::from_str(done.ok()).unwrap()
}

/// A number in the document, by its path.
#[track_caller]
fn number(stats: &Value, path: &str) -> u64 {
    let found = path.split('.').fold(stats, |value, key| &value[key]);
    found.as_u64().unwrap_or_else(|| panic!("no {path} in {stats:#}"))
}

/// How much more than before.
#[track_caller]
fn more(before: &Value, after: &Value, path: &str) -> u64 {
    number(after, path).checked_sub(number(before, path)).expect("a counter went back")
}

fn requests(before: &Value, after: &Value, kind: &str) -> u64 {
    more(before, after, &format!("requests.{kind}.count"))
}

/// The kernel forgets a file's content, so that the next read asks the server again.
fn forget(file: &Path) {
    let file = File::open(file).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn every_request_counts() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&["--rm"], image("tiny").join("oci"));
    let dir = mounted.path("made");
    let before = stats(&place, place.mnt());
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a"), [7; 5000]).unwrap();
    fs::rename(dir.join("a"), dir.join("b")).unwrap();
    fs::hard_link(dir.join("b"), dir.join("c")).unwrap();
    std::os::unix::fs::symlink("b", dir.join("d")).unwrap();
    File::open(dir.join("b")).unwrap().sync_all().unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
    fs::remove_file(dir.join("c")).unwrap();
    let mut value = [0; 10];
    let error = rustix::fs::getxattr(dir.join("b"), "user.nothing", value.as_mut_slice()).unwrap_err();
    assert_eq!(error, Errno::NODATA);
    assert!(!dir.join("nowhere").exists());
    fs::remove_dir(&dir).unwrap_err();
    let after = stats(&place, place.mnt());
    let counted = |kind: &str| requests(&before, &after, kind);
    for kind in ["mkdir", "create", "write", "rename", "link", "symlink", "fsync", "unlink"] {
        assert_eq!(counted(kind), 1, "{kind}: {after:#}");
    }
    assert!(counted("readdirplus") + counted("readdir") >= 1);
    // The name of the directory, that of the file, those that are not there.
    assert!(counted("lookup") >= 3 && counted("rmdir") == 1);
    assert_eq!(more(&before, &after, "traffic.written_bytes"), 5000);
    let errors =
        |stats: &Value, kind: &str, name: &str| stats["requests"][kind]["errors"][name].as_u64().unwrap_or(0);
    assert_eq!(errors(&after, "rmdir", "ENOTEMPTY"), 1);
    // The kernel asks for attributes of its own accord, too.
    assert!(errors(&after, "getxattr", "ENODATA") > errors(&before, "getxattr", "ENODATA"));
    for (kind, request) in after["requests"].as_object().unwrap() {
        let at = |name: &str| request[name].as_u64().unwrap();
        let order = [0, at("p50_ns"), at("p90_ns"), at("p99_ns"), at("max_ns")];
        assert!(order.is_sorted(), "{kind}: {request}");
        assert!(at("total_ns") >= at("max_ns"), "{kind}: {request}");
        assert!(at("total_ns") <= at("max_ns").saturating_mul(at("count")), "{kind}: {request}");
    }
    // Looking changes nothing.
    let again = stats(&place, place.mnt());
    assert_eq!(requests(&after, &again, "getxattr"), 0);
    for key in ["requests", "granules", "reads", "tree", "traffic"] {
        assert_eq!(after[key], again[key], "{key}");
    }
    assert!(number(&again, "server.uptime_ns") > number(&after, "server.uptime_ns"));
    assert!(number(&again, "server.resident_bytes") > 1 << 20 && number(&again, "server.threads") > 1);
    mounted.unmount();
}

#[test]
fn granules_are_told_by_where_they_came_from() {
    needs_mount!();
    let place = Place::new();
    let source = image("tiny").join("oci");
    let length = fs::metadata(image("tiny").join("rootfs").join(DATA)).unwrap().len();
    let granules = length / GRANULE_BYTES;
    assert!(granules > 2, "too small to show anything");

    let mounted = place.mount(&["--rm"], &source);
    let before = stats(&place, mounted.path(DATA));
    fs::read(mounted.path(DATA)).unwrap();
    let cold = stats(&place, place.mnt());
    let decoded = more(&before, &cold, "granules.decoded.count");
    assert!(decoded >= 1 && decoded + more(&before, &cold, "granules.memory.count") >= granules, "{cold:#}");
    assert!(more(&before, &cold, "reads.decoded_bytes") >= length);
    // What only leads to a granule is not verified.
    assert!(more(&before, &cold, "reads.verified_bytes") >= granules * GRANULE_BYTES);
    assert!(number(&cold, "reads.verified_bytes") <= number(&cold, "reads.decoded_bytes"));
    let decodes = number(&cold, "reads.decodes_resumed") + number(&cold, "reads.decodes_continued");
    assert_eq!(decodes, number(&cold, "granules.decoded.count"));
    assert!(more(&before, &cold, "traffic.read_bytes") >= length);
    assert_eq!(number(&cold, "granules.spill.count"), 0);
    assert_eq!((number(&cold, "reads.mismatches"), number(&cold, "reads.failed")), (0, 0));
    assert!(number(&cold, "reads.cache_bytes") >= granules * GRANULE_BYTES);
    forget(&mounted.path(DATA));
    fs::read(mounted.path(DATA)).unwrap();
    let warm = stats(&place, place.mnt());
    assert!(more(&cold, &warm, "granules.memory.count") >= granules);
    assert_eq!(more(&cold, &warm, "reads.decoded_bytes"), 0);
    assert_eq!(number(&warm, "tree.copy_ups"), 0);
    mounted.unmount();

    // Decoded for the second time it is kept, and the third mount reads it, ahead or when it is asked for.
    let mounted = place.mount(&["--rm"], &source);
    fs::read(mounted.path(DATA)).unwrap();
    let kept = || number(&stats(&place, place.mnt()), "reads.spilled_bytes") >= granules * GRANULE_BYTES;
    assert!(eventually(kept), "{:#}", stats(&place, place.mnt()));
    mounted.unmount();
    let mounted = place.mount(&["--rm"], &source);
    fs::read(mounted.path(DATA)).unwrap();
    let spilled = stats(&place, place.mnt());
    assert!(number(&spilled, "granules.spill.count") >= granules, "{spilled:#}");
    assert!(number(&spilled, "granules.spill.total_ns") > 0);
    // One granule lies partly in what others have.
    assert!(number(&spilled, "granules.decoded.count") <= 2, "{spilled:#}");
    mounted.unmount();

    let mounted = place.mount(&["--rm"], image("tiny").join("docker.tar"));
    fs::read(mounted.path(DATA)).unwrap();
    let plain = stats(&place, place.mnt());
    assert!(number(&plain, "granules.plain.count") >= granules, "{plain:#}");
    assert_eq!((number(&plain, "granules.decoded.count"), number(&plain, "reads.decoded_bytes")), (0, 0));
    assert!(number(&plain, "reads.verified_bytes") >= length);
    // What is copied up is read from the layer first.
    let file = File::options().write(true).open(mounted.path(DATA)).unwrap();
    file.write_all_at(b"more", 1000).unwrap();
    let raised = stats(&place, place.mnt());
    // The file, and the directories that lead to it.
    assert!((1..=4).contains(&more(&plain, &raised, "tree.copy_ups")), "{raised:#}");
    // What lies around what is written, up to the next 4 KiB.
    assert_eq!(more(&plain, &raised, "tree.copied_bytes"), 4096 - 4);
    drop(file);
    mounted.unmount();
}

#[test]
fn damage_is_counted() {
    needs_mount!();
    let place = Place::new();
    let source = place.path("image");
    copy(&image("tiny").join("oci"), &source);
    place.mount(&["--rm"], &source).unmount();
    let blobs = fs::read_dir(source.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let blob = blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x55);
    fs::write(&blob, bytes).unwrap();
    let mounted = place.mount(&["--rm"], &source);
    fs::read(mounted.path(DATA)).unwrap_err();
    let stats = stats(&place, place.mnt());
    assert!(number(&stats, "reads.failed") >= 1, "{stats:#}");
    assert!(number(&stats, "requests.read.errors.EIO") >= 1, "{stats:#}");
    mounted.unmount();
}

/// A question of the smallest kind.
fn ask(path: &Path, buffer: &mut [u8]) -> Result<usize, Errno> {
    rustix::fs::getxattr(path, ATTRIBUTE, buffer)
}

#[test]
fn nobody_sees_the_attribute() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&[], image("tiny").join("oci"));
    for name in ["", "etc", "etc/passwd"] {
        let path = mounted.path(name);
        let mut told = vec![0; 1 << 16];
        assert!(ask(&path, &mut told).unwrap() > 100);
        assert_eq!(ask(&path, &mut [0; 64]), Err(Errno::RANGE));
        // It asks for the length first.
        let whole = shell(
            "getfattr --absolute-names --only-values -n \"$2\" -- \"$1\"",
            &[&path, Path::new(ATTRIBUTE)],
        );
        serde_json::from_str::<Value>(whole.ok()).unwrap();
        let names = shell("getfattr -d -m - -- \"$1\"", &[&path]);
        assert!(!names.ok().contains("stats"), "{names:?}");
        // No program can set it, or one that looks like it.
        for name in [ATTRIBUTE, "system.layerfs.other"] {
            let set = rustix::fs::setxattr(&path, name, b"x", rustix::fs::XattrFlags::empty());
            assert_eq!(set, Err(Errno::OPNOTSUPP));
        }
        let other = rustix::fs::getxattr(&path, "system.layerfs.other", told.as_mut_slice());
        assert_eq!(other, Err(Errno::OPNOTSUPP));
    }
    let copied = place.path("copied");
    shell("cp -a -- \"$1\" \"$2\"", &[&mounted.path("etc"), &copied]).ok();
    assert!(!shell("getfattr -R -d -m - -- \"$1\"", &[&copied]).ok().contains("stats"));
    // Nothing of it is kept in the upper.
    let upper = place.store().join("containers").join(&mounted.id);
    assert!(!shell("getfattr -h -R -d -m - -- \"$1\"", &[&upper]).out.contains("stats"));
    mounted.unmount();
}

#[test]
fn any_path_of_the_mount_or_its_container_will_do() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&[], image("tiny").join("oci"));
    std::os::unix::fs::symlink(place.mnt(), place.path("link")).unwrap();
    let id = mounted.id.clone();
    let paths = [
        place.path("link"),
        place.path("mnt/"),
        place.mnt().join("etc/passwd"),
        place.path("mnt/../mnt/usr"),
    ];
    for path in paths {
        stats(&place, path);
    }
    stats(&place, &id[..12]);
    let table = place.layerfs(&[OsStr::new("stats"), place.mnt().as_os_str()]);
    assert!(table.ok().starts_with("server ") && table.ok().contains("\nREQUEST "), "{table:?}");
    mounted.unmount();
    let done = place.layerfs(&["stats", &id[..12]]);
    assert_eq!(done.code, 125);
    assert!(done.err.contains("neither mounted nor running"), "{done:?}");
}

#[test]
fn what_cannot_tell_says_why() {
    needs_mount!();
    let place = Place::new();
    let refused = |of: &OsStr, why: &str| {
        let done = place.layerfs(&[OsStr::new("stats"), of]);
        assert_eq!(done.code, 125, "{done:#?}");
        assert!(done.err.contains(why) && done.err.lines().count() == 1 && done.out.is_empty(), "{done:#?}");
    };
    refused(place.mnt().as_os_str(), "no layerfs mount, but on a filesystem of type");
    refused(OsStr::new("/proc"), "/proc: no layerfs mount, but on a filesystem of type proc");
    refused(OsStr::new("nowhere"), "nowhere: no such directory, and no such container");
    let done = place.layerfs(&["stats", "--json", "--prometheus", "/proc"]);
    assert_eq!(done.code, 125);
    let mounted = place.mount(&[], image("tiny").join("oci"));
    let server = place.server().to_string();
    finish(Command::new("kill").args(["-KILL", &server])).ok();
    assert!(eventually(|| place.processes().is_empty()));
    refused(place.mnt().as_os_str(), "its server is gone: unmount it");
    drop(mounted);
}

#[test]
fn mounts_of_others_tell_nothing() {
    needs_mount!();
    if !is_root() {
        skip!("only root can be somebody else");
    }
    let place = Place::new();
    let mounted = place.mount(&["--rm"], image("tiny").join("oci"));
    // Everybody may look at the mount, and run the program.
    let script = r#"
        chmod 755 "$2"; install -m 755 "$1" "$2/layerfs"; cd /
        setpriv --reuid 65534 --regid 65534 --clear-groups cat "$2/mnt/etc/passwd" >/dev/null
        setpriv --reuid 65534 --regid 65534 --clear-groups "$2/layerfs" stats "$2/mnt"
    "#;
    let done = shell(script, &[Path::new(&layerfs_path()), &place.path("")]);
    assert_eq!(done.code, 125, "{done:#?}");
    let said = "only the user who mounted it may ask, and root: Permission denied (os error 13)\n";
    assert!(done.err.ends_with(&format!("/mnt: {said}")), "{done:#?}");
    mounted.unmount();
}

/// Runs until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_running_container_tells() {
    needs_mount!();
    let place = Place::new();
    let mut command = place.command();
    command.args(["run", "--rm", "--quiet", "--name", "box"]).arg(image("tiny").join("oci"));
    command.args(["sh", "-c", "cat /usr/share/data >/dev/null; echo ready; sleep 60"]);
    let mut running = Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(running.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let told = stats(&place, "box");
    assert!(number(&told, "reads.verified_bytes") > GRANULE_BYTES, "{told:#}");
    assert!(number(&told, "requests.lookup.count") > 0);
    drop(running);
    place.nothing_left();
}

#[test]
fn prometheus_reads_it() {
    needs_mount!();
    if finish(Command::new(PYTHON).args(["-c", "import prometheus_client"])).code != 0 {
        skip!("must run: no prometheus_client for Python: run scripts/install");
    }
    // A name that has to be escaped.
    let place = Place::new();
    let odd = place.path("odd \"name\" \\ here");
    fs::create_dir(&odd).unwrap();
    let mut command = place.command();
    finish(command.args(["mount", "--rm"]).args([&image("tiny").join("oci"), &odd])).ok();
    fs::read(odd.join(DATA)).unwrap();
    fs::read_dir(odd.join("usr")).unwrap().for_each(|entry| drop(entry.unwrap()));
    let json = stats(&place, &odd);
    let page = place.layerfs(&[OsStr::new("stats"), OsStr::new("--prometheus"), odd.as_os_str()]);
    let file = place.path("page");
    fs::write(&file, &page.out).unwrap();
    let script = "\"$1\" -- \"$2\" \"$3\" <\"$4\"";
    let judged = shell(script, &[Path::new(PYTHON), &support_file("prometheus.py"), &odd, &file]);
    let samples: Value = serde_json::from_str(judged.ok()).unwrap();
    finish(place.command().arg("umount").arg(&odd)).ok();
    place.nothing_left();
    // The same numbers in both forms, from an idle mount.
    let mut compared = 0;
    let mut same = |sample: String, path: String| {
        let found = samples[&sample].as_f64().unwrap_or_else(|| panic!("no {sample} in {samples:#}"));
        let told = number(&json, &path);
        let unit = if path.ends_with("_ns") { 1e-9 } else { 1.0 };
        assert!((found - told as f64 * unit).abs() < 1e-6, "{sample}: {found}, {path}: {told}");
        compared += 1;
    };
    for (kind, request) in json["requests"].as_object().unwrap() {
        same(format!("requests_total,{kind}"), format!("requests.{kind}.count"));
        if request["count"] != 0 {
            same(format!("request_duration_seconds_count,{kind}"), format!("requests.{kind}.count"));
            same(format!("request_duration_seconds_sum,{kind}"), format!("requests.{kind}.total_ns"));
        }
        for name in request["errors"].as_object().unwrap().keys() {
            same(format!("request_errors_total,{kind},{name}"), format!("requests.{kind}.errors.{name}"));
        }
    }
    for tier in json["granules"].as_object().unwrap().keys() {
        same(format!("granules_total,{tier}"), format!("granules.{tier}.count"));
    }
    for (sample, path) in [
        ("read_bytes_total", "traffic.read_bytes"),
        ("decoded_bytes_total", "reads.decoded_bytes"),
        ("verified_bytes_total", "reads.verified_bytes"),
        ("cache_bytes", "reads.cache_bytes"),
        ("cache_limit_bytes", "reads.cache_bytes_max"),
        ("decodes_total,checkpoint", "reads.decodes_resumed"),
        ("nodes", "tree.nodes"),
        ("layers", "tree.layers"),
        ("suspended_decoders", "tree.suspended_decoders"),
    ] {
        same(sample.to_owned(), path.to_owned());
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn many_may_ask_while_there_is_work() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&["--rm"], image("tiny").join("oci"));
    let (data, done) = (mounted.path(DATA), AtomicBool::new(false));
    let work = |number: usize| {
        for round in 0..30 {
            forget(&data);
            fs::read(&data).unwrap();
            let own: PathBuf = mounted.path(&format!("tmp/{number}-{round}"));
            fs::write(&own, "x").unwrap();
            fs::remove_file(&own).unwrap();
        }
    };
    let watch = || {
        let mut told = vec![0; 1 << 16];
        let (mut asked, mut before) = (0, 0);
        while !done.load(Ordering::Relaxed) || asked < 20 {
            let length = ask(&place.mnt(), &mut told).unwrap();
            let stats: Value = serde_json::from_slice(&told[..length]).unwrap();
            let verified = number(&stats, "reads.verified_bytes");
            assert!(verified >= before, "a counter went back");
            (asked, before) = (asked + 1, verified);
        }
    };
    std::thread::scope(|scope| {
        let watchers = [scope.spawn(watch), scope.spawn(watch), scope.spawn(watch)];
        let workers = [0, 1, 2].map(|number| scope.spawn(move || work(number)));
        let worked = workers.map(|worker| worker.join().is_ok());
        done.store(true, Ordering::Relaxed);
        assert!(worked.iter().chain(&watchers.map(|watcher| watcher.join().is_ok())).all(|ended| *ended));
    });
    let stats = stats(&place, place.mnt());
    for kind in ["create", "write", "unlink"] {
        assert_eq!(number(&stats, &format!("requests.{kind}.count")), 90, "{kind}");
    }
    mounted.unmount();
}
