//! Images that are mounted before they are here: what is read is fetched then, over a line that may be cut, from a registry
//! that may lie. That is Debian's docker-registry; what stands before it are programs of `tests/support`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::mount_equal::judged;
use crate::push::Registry;
use crate::support::*;

/// What the system says of a read that failed.
const EIO: i32 = 5;
/// Whatever takes longer hangs.
const LONG: Duration = Duration::from_secs(90);
/// How long a read waits for a registry that is gone, as tests want it.
const IMPATIENT: (&str, &str) = ("LAYERFS_LAZY_SECONDS", "2");

macro_rules! needs_registry {
    () => {{
        needs_mount!();
        let Some(program) = Registry::program() else {
            skip!("must run: no docker-registry: run scripts/install")
        };
        program
    }};
}

mod tables;

/// A program that stands between a mount and the registry; ends with its test.
struct Between {
    process: Child,
    /// What it prints.
    output: PathBuf,
    /// `127.0.0.1:PORT`.
    host: String,
}

impl Between {
    fn start(place: &Place, script: &str, arguments: &[&OsStr]) -> Self {
        let output = place.path(&format!("{script}.out"));
        let process = Command::new("python3")
            .arg(support_file(script))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&output).unwrap())
            .spawn()
            .unwrap();
        let mut between = Self { process, output, host: String::new() };
        assert!(eventually(|| between.lines().next().is_some()), "{script} does not listen");
        between.host = format!("127.0.0.1:{}", between.lines().next().unwrap());
        between
    }

    /// What it has printed, line by line as far as they are complete.
    fn lines(&self) -> impl Iterator<Item = String> + use<> {
        let text = fs::read_to_string(&self.output).unwrap();
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        text[..complete].lines().map(str::to_owned).collect::<Vec<_>>().into_iter()
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).unwrap();
    }
}

/// An image in a registry, with the indexes of its layers, and what leads there.
struct Far<'a> {
    place: &'a Place,
    /// Ends with the test.
    _registry: Registry,
    between: Between,
    /// The digest of the indexes.
    index: String,
}

impl<'a> Far<'a> {
    /// Pushes the layout; `script` and what it gets after the ports is what leads to it.
    fn of(place: &'a Place, program: &Path, layout: &Path, script: &str, options: &[&OsStr]) -> Self {
        let registry = Registry::start(program, place);
        // From a store of its own: what is built there is not here.
        let mut push = Command::new(layerfs_path());
        push.env("LAYERFS_ROOT", place.path("elsewhere")).args(["push", "--with-index"]).arg(layout);
        push.arg(format!("docker://{}/far:1", registry.host)).arg("--tls-verify=false");
        let pushed = finish(&mut push);
        let index = pushed.ok().lines().find_map(|line| line.strip_prefix("index ")).map(str::to_owned);
        let index = index.unwrap_or_else(|| panic!("no line about the index: {pushed:#?}"));
        let port = registry.host.rsplit(':').next().unwrap().to_owned();
        let first = if script == LINE { vec![OsStr::new("0")] } else { Vec::new() };
        let arguments = [&first[..], &[OsStr::new(&port)], options].concat();
        let between = Between::start(place, script, &arguments);
        Self { place, _registry: registry, between, index }
    }

    /// Over a line that is fast, counts, and is cut while the file `cut` is there.
    fn over_a_line(place: &'a Place, program: &Path, layout: &Path) -> Self {
        let (count, cut) = (place.path("count"), place.path("cut"));
        let options = ["--mbit", "1000", "--delay-ms", "2", "--count"].map(OsStr::new);
        let files = [count.as_os_str(), OsStr::new("--cut-file"), cut.as_os_str()];
        Self::of(place, program, layout, LINE, &[&options[..], &files].concat())
    }

    fn name(&self) -> String {
        format!("{}/far:1", self.between.host)
    }

    /// The bytes that came over the line until now.
    fn moved(&self) -> u64 {
        // It counts ten times a second.
        thread::sleep(Duration::from_millis(400));
        let text = fs::read_to_string(self.place.path("count")).unwrap();
        let mut words = text.split_whitespace();
        words.find(|word| *word == "down").unwrap();
        words.next().unwrap().parse().unwrap()
    }

    fn cut(&self) {
        fs::write(self.place.path("cut"), "").unwrap();
        // Twenty times as long as the line takes to look.
        thread::sleep(Duration::from_millis(400));
    }

    fn mend(&self) {
        fs::remove_file(self.place.path("cut")).unwrap();
    }

    /// `layerfs mount --lazy` with these options, to its end.
    fn mount(&self, options: &[&str], env: &[(&str, &str)]) -> Done {
        let mut command = self.place.command();
        command.args(["mount", "--rm", "--lazy"]).args(options).arg(self.name()).arg(self.place.mnt());
        let done = finish(command.envs(env.iter().copied()));
        assert_eq!((done.code, is_mounted(&self.place.mnt())), (0, true), "{done:#?}");
        done
    }

    /// Nothing is fetched but what is read.
    fn mount_for_reads(&self, env: &[(&str, &str)]) -> Done {
        self.mount(&["--background", "off", "--trust-index", &self.index], env)
    }

    fn unmount(&self) {
        self.place.layerfs(&[OsStr::new("umount"), self.place.mnt().as_os_str()]).ok();
        // The registry stays for what comes next.
        assert!(!is_mounted(&self.place.mnt()));
        assert!(eventually(|| fetcher(self.place).is_none()), "it still fetches");
    }

    fn is_whole(&self) -> bool {
        self.place.layerfs(&["image", "exists", &self.name()]).code == 0
    }
}

const LINE: &str = "slow_proxy.py";
const ODD: &str = "odd_registry.py";

fn layout_of(name: &str) -> PathBuf {
    image(name).join("oci")
}

fn assert_whole_tree(what: &str, name: &str, mnt: &Path) {
    assert_same_tree(what, judged().1, &image(name).join("expected.tree"), mnt);
}

/// A small file of a test image that everybody may read, and the sha256 of what is in it.
fn small_file(name: &str) -> (String, String) {
    let tree = fs::read_to_string(image(name).join("expected.tree")).unwrap();
    let small = tree.lines().find_map(|line| {
        let (path, rest) = line.split_once(" type=file mode=0644 ")?;
        let field = |key: &str| rest.split(' ').find_map(|field| field.strip_prefix(key));
        let size: u64 = field("size=")?.parse().ok()?;
        let is_plain = path.starts_with("etc/") && !path.contains('\\') && (1..4096).contains(&size);
        is_plain.then_some((path.to_owned(), field("sha256=")?.to_owned()))
    });
    small.unwrap_or_else(|| panic!("{name}: no small file in etc"))
}

/// The size of all layers of a layout.
fn layers_bytes(layout: &Path) -> u64 {
    let json =
        |path: PathBuf| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let digest =
        json(layout.join("index.json"))["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    let manifest = json(layout.join("blobs").join(digest));
    manifest["layers"].as_array().unwrap().iter().map(|layer| layer["size"].as_u64().unwrap()).sum()
}

/// An image of which little is needed to read a file: the layout, and the directory with what is in it.
fn far_image(place: &Place) -> (PathBuf, PathBuf) {
    let made = place.path("made");
    finish(Command::new("python3").arg(support_file("far_image.py")).arg(&made)).ok();
    (made.join("oci"), made.join("files"))
}

/// Reads a file in a thread of its own, as it may wait.
fn read_aside(path: PathBuf) -> Receiver<Result<Vec<u8>, Option<i32>>> {
    let (sender, receiver) = channel();
    // Who gave up waiting for it has failed already.
    thread::spawn(move || sender.send(fs::read(path).map_err(|error| error.raw_os_error())).ok());
    receiver
}

/// What comes of it, or of waiting for it.
#[track_caller]
fn read(path: PathBuf) -> Result<Vec<u8>, Option<i32>> {
    let shown = path.display().to_string();
    read_aside(path).recv_timeout(LONG).unwrap_or_else(|_| panic!("{shown}: a read hangs"))
}

/// What the mount and who fetches for it have to say.
fn logs(mnt: &Path) -> String {
    let tail = "tail -n 60 \"$1\"/store/arriving/log \"$1\"/store/containers/*/log";
    shell(tail, &[mnt.parent().unwrap()]).out
}

/// The same bytes; said without showing all of them.
#[track_caller]
fn assert_reads(mnt: &Path, files: &Path, name: &str) {
    let found = read(mnt.join(name)).unwrap_or_else(|errno| panic!("{name}: errno {errno:?}\n{}", logs(mnt)));
    assert!(found == fs::read(files.join(name)).unwrap(), "{name}: other bytes");
}

fn owner() -> &'static [&'static str] {
    judged().0
}

#[test]
fn lazy_with_an_index() {
    let program = needs_registry!();
    for name in images() {
        let place = Place::new();
        let far = Far::over_a_line(&place, &program, &layout_of(name));
        let trusting = ["--background", "off", "--trust-index", &far.index];
        let before = far.moved();
        far.mount(&[owner(), &trusting].concat(), &[]);
        assert!(!far.is_whole(), "{name}: it is not all here, and must not seem so");
        let (small, digest) = small_file(name);
        assert_eq!(sha256(&place.mnt().join(&small)), digest, "{name}: {small}");
        let (moved, whole) = (far.moved() - before, layers_bytes(&layout_of(name)));
        // What is small may be fetched whole.
        assert!(name == "tiny" || moved < whole / 3, "{name}: {moved} of {whole} bytes for a small file");
        assert_whole_tree(&format!("{name}, as it is fetched"), name, &place.mnt());
        assert_whole_tree(&format!("{name}, again"), name, &place.mnt());
        far.unmount();
    }
}

#[test]
fn in_the_background_it_becomes_whole() {
    let program = needs_registry!();
    let place = Place::new();
    let far = Far::over_a_line(&place, &program, &layout_of("tiny"));
    let options = ["--background", "now", "--trust-index", &far.index];
    far.mount(&[owner(), &options].concat(), &[]);
    assert!(eventually(|| far.is_whole()), "it does not become whole");
    far.cut();
    place.layerfs(&["store", "check"]).ok();
    place.layerfs(&["verify", &far.name()]).ok();
    assert_whole_tree("the mount after the registry is gone", "tiny", &place.mnt());
    far.unmount();
    // An image like any other now.
    place.layerfs(&["run", "--rm", "--pull=never", &far.name(), "true"]).ok();
    let mut command = place.command();
    finish(command.args(["mount", "--rm"]).args(owner()).arg(far.name()).arg(place.mnt())).ok();
    assert_whole_tree("an ordinary mount afterwards", "tiny", &place.mnt());
    far.unmount();
}

#[test]
fn an_index_that_is_not_trusted_is_not_used() {
    let program = needs_registry!();
    let place = Place::new();
    let far = Far::over_a_line(&place, &program, &layout_of("tiny"));
    // Somebody else's digest makes no difference.
    let other = format!("sha256:{}", "0".repeat(64));
    let options = ["--background", "off", "--trust-index", &other];
    let done = far.mount(&[owner(), &options].concat(), &[]);
    assert_eq!(done.err.matches(&far.index).count(), 1, "{done:#?}");
    assert!(far.is_whole(), "without an index that may be used it is pulled");
    assert_whole_tree("pulled whole", "tiny", &place.mnt());
    far.unmount();
}

#[test]
fn a_server_without_ranges() {
    let program = needs_registry!();
    let place = Place::new();
    let far = Far::of(&place, &program, &layout_of("tiny"), ODD, &[OsStr::new("--no-ranges")]);
    let options = ["--background", "off", "--trust-index", &far.index];
    let done = far.mount(&[owner(), &options].concat(), &[]);
    let told = done.err.lines().filter(|line| line.contains("range")).count();
    assert_eq!(told, 1, "said once that there are no ranges: {done:#?}");
    assert!(far.is_whole(), "what cannot be fetched in parts is pulled");
    assert_whole_tree("pulled whole", "tiny", &place.mnt());
    far.unmount();
}

#[test]
fn the_registry_goes_and_comes_back() {
    let program = needs_registry!();
    let place = Place::new();
    let (layout, files) = far_image(&place);
    let far = Far::over_a_line(&place, &program, &layout);
    far.mount_for_reads(&[]);
    assert_reads(&place.mnt(), &files, "upper/0");
    far.cut();
    assert_reads(&place.mnt(), &files, "upper/0");
    let waiting = read_aside(place.path("mnt/lower/6"));
    let soon = waiting.recv_timeout(Duration::from_secs(4));
    assert_eq!(soon.map(|found| found.map(|bytes| bytes.len())), Err(RecvTimeoutError::Timeout));
    // Names need no registry, even now.
    assert_eq!(fs::read_dir(place.path("mnt/upper")).unwrap().count(), 8);
    far.mend();
    let found = waiting.recv_timeout(LONG).expect("it goes on when the registry is back");
    assert!(found.unwrap() == fs::read(files.join("lower/6")).unwrap(), "other bytes");
    far.unmount();
}

#[test]
fn reads_do_not_wait_for_ever() {
    let program = needs_registry!();
    let place = Place::new();
    let (layout, files) = far_image(&place);
    let far = Far::over_a_line(&place, &program, &layout);
    far.mount_for_reads(&[IMPATIENT]);
    assert_reads(&place.mnt(), &files, "upper/0");
    far.cut();
    let start = Instant::now();
    assert_eq!(read(place.path("mnt/lower/6")), Err(Some(EIO)));
    let took = start.elapsed();
    // A read may be several requests, each of which waits.
    assert!((1..60).contains(&took.as_secs()), "after {took:?}");
    assert_reads(&place.mnt(), &files, "upper/0");
    far.mend();
    let back = eventually(|| read(place.path("mnt/lower/6")).is_ok());
    assert!(back, "it works again when the registry is back");
    assert_reads(&place.mnt(), &files, "lower/6");
    far.unmount();
}

#[test]
fn what_is_unmounted_waits_for_nothing() {
    let program = needs_registry!();
    let place = Place::new();
    let (layout, files) = far_image(&place);
    let far = Far::over_a_line(&place, &program, &layout);
    far.mount_for_reads(&[("LAYERFS_LAZY_SECONDS", "3600")]);
    assert_reads(&place.mnt(), &files, "upper/0");
    far.cut();
    let mut reader =
        Command::new("cat").arg(place.path("mnt/lower/6")).stdout(Stdio::null()).spawn().unwrap();
    // It waits by then.
    thread::sleep(Duration::from_secs(1));
    reader.kill().and_then(|()| reader.wait()).unwrap();
    far.unmount();
}

#[test]
fn a_container_that_is_run_again_fetches_on() {
    let program = needs_registry!();
    let place = Place::new();
    let far = Far::over_a_line(&place, &program, &layout_of("debian"));
    let script = "[ -e /again ] || { : >/again; exit 1; }; sha256sum </usr/bin/perl";
    let mut command = place.command();
    command.args(["run", "-d", "--name", "one", "--restart", "on-failure:3", "--lazy"]);
    command.args(["--background", "off", "--trust-index", &far.index]);
    finish(command.arg(far.name()).args(["sh", "-c", script])).ok();
    assert!(!far.is_whole());
    let ended = place.layerfs(&["wait", "one"]);
    let said = place.layerfs(&["logs", "one"]);
    let tree = fs::read_to_string(image("debian").join("expected.tree")).unwrap();
    let perl = tree.lines().find(|line| line.starts_with("usr/bin/perl type=file ")).unwrap();
    let sum = said.out.split(' ').next().unwrap();
    assert_eq!((ended.ok(), sum.len(), perl.contains(sum)), ("0", 64, true), "{said:#?}");
    place.layerfs(&["rm", "one"]).ok();
    assert!(eventually(|| fetcher(&place).is_none()), "it still fetches");
}

#[test]
fn a_lying_registry() {
    let program = needs_registry!();
    let place = Place::new();
    let (layout, files) = far_image(&place);
    let lie = place.path("lie");
    let far = Far::of(&place, &program, &layout, ODD, &[OsStr::new("--lie-file"), lie.as_os_str()]);
    far.mount_for_reads(&[IMPATIENT]);
    assert_reads(&place.mnt(), &files, "upper/0");
    fs::write(&lie, "").unwrap();
    let mut refused = 0;
    for name in ["lower/1", "lower/4", "upper/6"] {
        match read(place.mnt().join(name)) {
            Ok(found) => assert!(found == fs::read(files.join(name)).unwrap(), "{name}: other bytes"),
            Err(errno) => {
                assert_eq!(errno, Some(EIO), "{name}");
                refused += 1;
            }
        }
    }
    let lies = far.between.lines().filter(|line| line.starts_with("wrong ")).count();
    assert!(lies > 0, "nothing was asked for in ranges: {:?}", far.between.lines().collect::<Vec<_>>());
    fs::remove_file(&lie).unwrap();
    // What was wrong is fetched again, and so is all else.
    let is_right = eventually(|| read(place.path("mnt/lower/1")).is_ok());
    assert!(is_right, "{lies} lies, {refused} reads refused\n{}", logs(&place.mnt()));
    for name in ["lower/0", "lower/1", "lower/4", "upper/6", "upper/7"] {
        assert_reads(&place.mnt(), &files, name);
    }
    far.unmount();
}

/// The process of this place that fetches.
fn fetcher(place: &Place) -> Option<u32> {
    let is_it = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "layerfs-fetch")
    };
    place.processes().into_iter().find(is_it)
}

#[test]
fn killed_and_again() {
    let program = needs_registry!();
    let place = Place::new();
    let (layout, files) = far_image(&place);
    let far = Far::over_a_line(&place, &program, &layout);
    let before = far.moved();
    far.mount_for_reads(&[IMPATIENT]);
    for name in ["upper/0", "upper/1", "lower/3"] {
        assert_reads(&place.mnt(), &files, name);
    }
    let first = far.moved() - before;
    assert!(first < layers_bytes(&layout), "{first} bytes for three of sixteen files");
    let pid = fetcher(&place).expect("somebody fetches");
    finish(Command::new("kill").args(["-9", &pid.to_string()])).ok();
    assert!(eventually(|| fetcher(&place).is_none()), "it is dead");
    assert_eq!(read(place.path("mnt/lower/7")), Err(Some(EIO)));
    assert_reads(&place.mnt(), &files, "upper/0");
    far.unmount();

    let before = far.moved();
    far.mount_for_reads(&[IMPATIENT]);
    for name in ["upper/0", "upper/1", "lower/3"] {
        assert_reads(&place.mnt(), &files, name);
    }
    let second = far.moved() - before;
    assert!(second < first, "{first} bytes the first time, {second} the second");
    assert_reads(&place.mnt(), &files, "lower/7");
    far.unmount();
}
