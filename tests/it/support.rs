//! What the tests share: the binary, a place on disk, mounts that end with their test, and the judges of trees.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Ends the test as skipped. A reason that starts with `must run` fails continuous integration.
macro_rules! skip {
    ($($why:tt)*) => {{
        $crate::support::note_skip(&format!($($why)*));
        return;
    }};
}

/// How long a command may take before it counts as hanging.
const COMMAND_SECONDS_MAX: &str = "600";

pub(crate) fn note_skip(why: &str) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    println!("skipped: {why}");
    if let Some(path) = std::env::var_os("LAYERFS_TEST_SKIPS") {
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        file.write_all(format!("{name}: {why}\n").as_bytes()).unwrap();
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether `-o passthrough` is allowed: only root of the first user namespace may register files for it.
pub(crate) fn may_pass_through() -> bool {
    let all_ids = |map: String| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    is_root() && fs::read_to_string("/proc/self/uid_map").is_ok_and(all_ids)
}

/// Whether the caller has subordinate ids of its own.
pub(crate) fn has_id_ranges() -> bool {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let name = Command::new("id").arg("-un").output().unwrap().stdout;
    let name = String::from_utf8(name).unwrap().trim().to_owned();
    let has = |file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.starts_with(&format!("{name}:")) || line.starts_with(&format!("{uid}:")))
    };
    has("/etc/subuid") && has("/etc/subgid")
}

/// Why nothing can be mounted here, if so.
pub(crate) fn why_no_mount() -> Option<String> {
    let image = image("tiny");
    if !image.join("stamp").exists() {
        return Some(format!("must run: no image in {}: run scripts/images", image.display()));
    }
    let fuse = File::options().read(true).write(true).open("/dev/fuse");
    fuse.err().map(|error| format!("must run: /dev/fuse: {error}"))
}

/// The OCI runtimes of this host that layerfs is tested with.
pub(crate) fn runtimes() -> Vec<&'static str> {
    let dirs = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
    let is_here = |name: &&str| dirs.iter().any(|dir| Path::new(dir).join(name).exists());
    ["crun", "runc"].into_iter().filter(is_here).collect()
}

/// The options for a container of our own making, and for one of each OCI runtime.
pub(crate) fn by_all_runtimes() -> Vec<Vec<String>> {
    let by = |name| vec!["--runtime".to_owned(), String::from(name)];
    std::iter::once(Vec::new()).chain(runtimes().into_iter().map(by)).collect()
}

/// Skips the test when nothing can be mounted.
macro_rules! needs_mount {
    () => {
        if let Some(why) = $crate::support::why_no_mount() {
            skip!("{why}");
        }
    };
}

/// The directory of a test image, see `scripts/images`.
pub(crate) fn image(name: &str) -> PathBuf {
    let cache = std::env::var_os("LAYERFS_TEST_IMAGES");
    Path::new(&cache.unwrap_or_else(|| "/var/cache/layerfs-test-images".into())).join(name)
}

/// Both test images, as far as they were made.
pub(crate) fn images() -> Vec<&'static str> {
    ["tiny", "debian"].into_iter().filter(|name| image(name).join("stamp").exists()).collect()
}

pub(crate) fn layerfs_path() -> OsString {
    std::env::var_os("LAYERFS_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_layerfs").into())
}

/// A file of `tests/support`.
pub(crate) fn support_file(name: &str) -> PathBuf {
    match std::env::var_os("LAYERFS_TEST_SUPPORT") {
        Some(dir) => Path::new(&dir).join(name),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(name),
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Done {
    /// Exit code; 128+n after a signal; 124 when it hung.
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// Standard output without the last newline, of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:#?}");
        self.out.trim_end_matches('\n')
    }
}

/// Runs a command to its end. Output goes through files: a server that kept the caller's pipe open must not hang the test.
pub(crate) fn finish(command: &mut Command) -> Done {
    let mut limited = Command::new("timeout");
    // More for long runs.
    let seconds = std::env::var("LAYERFS_TEST_COMMAND_SECONDS");
    let seconds = seconds.as_deref().unwrap_or(COMMAND_SECONDS_MAX);
    limited.args(["-k", "5", seconds]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(key, value),
            None => limited.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        limited.current_dir(dir);
    }
    let (out, err) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    limited.stdin(Stdio::null()).stdout(out.reopen().unwrap()).stderr(err.reopen().unwrap());
    let status = limited.status().unwrap();
    let text = |file: &Path| String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
    Done { code: exit_code(status), out: text(out.path()), err: text(err.path()) }
}

pub(crate) fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Runs a shell script with `arguments` as `$1` and so on.
pub(crate) fn shell(script: &str, arguments: &[&Path]) -> Done {
    finish(Command::new("bash").args(["-ec", script, "bash"]).args(arguments))
}

/// A directory on a real disk with a store and a mount point of its own; gone when the test is over.
pub(crate) struct Place {
    dir: Option<tempfile::TempDir>,
}

impl Place {
    pub(crate) fn new() -> Place {
        let parent = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
        let dir = tempfile::Builder::new().prefix("layerfs-it.").tempdir_in(parent).unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        Place { dir: Some(dir) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.as_ref().unwrap().path().join(name)
    }

    pub(crate) fn mnt(&self) -> PathBuf {
        self.path("mnt")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(layerfs_path());
        command.env("LAYERFS_ROOT", self.store());
        command
    }

    /// `layerfs ARGUMENTS`, to its end.
    pub(crate) fn layerfs<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Done {
        finish(self.command().args(arguments))
    }

    /// Mounts `image` upon the place's mount point.
    #[track_caller]
    pub(crate) fn mount(&self, options: &[&str], image: impl AsRef<OsStr>) -> Mounted<'_> {
        let mut command = self.command();
        command.arg("mount").args(options).arg(image).arg(self.mnt());
        let done = finish(&mut command);
        let mounted = Mounted { place: self, id: done.out.trim().to_owned() };
        assert_eq!(done.code, 0, "{done:#?}");
        assert!(is_mounted(&self.mnt()), "mount ended with 0 but nothing is mounted");
        mounted
    }

    /// The ids of the container directories in the store.
    pub(crate) fn containers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store().join("containers")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Processes that carry this place in their arguments or their environment.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let needle = self.path("").into_os_string().into_encoded_bytes();
        let needle = needle.strip_suffix(b"/").unwrap_or(&needle);
        let says = |process: &Path| {
            let texts = ["cmdline", "environ"].map(|file| fs::read(process.join(file)).unwrap_or_default());
            let has = |text: &Vec<u8>| text.windows(needle.len()).any(|window| window == needle);
            (texts.iter().any(has), texts.iter().all(Vec::is_empty))
        };
        let names_it = |pid: &u32| {
            let process = PathBuf::from(format!("/proc/{pid}"));
            match says(&process) {
                // Its first thread may have ended before the others.
                (false, true) => {
                    let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
                    threads.skip(1).any(|thread| says(&thread.path()).0)
                }
                (names_it, _) => names_it,
            }
        };
        let pids =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid| *pid != std::process::id()).filter(names_it).collect()
    }

    /// The process that serves the place's mount.
    #[track_caller]
    pub(crate) fn server(&self) -> u32 {
        let found = self.processes();
        assert_eq!(found.len(), 1, "one server for one mount: {found:?}");
        found[0]
    }

    /// Waits until neither a mount nor a process of this place is left.
    #[track_caller]
    pub(crate) fn nothing_left(&self) {
        let quiet = eventually(|| !is_mounted(&self.mnt()) && self.processes().is_empty());
        assert!(quiet, "left: mounted {}, processes {:?}", is_mounted(&self.mnt()), self.processes());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        force_unmount(&self.mnt());
        // Images hold directories that not even their owner may write: open them first.
        let dir = self.dir.take().unwrap();
        let opened =
            Command::new("chmod").args(["-R", "u+rwX"]).arg(dir.path()).stderr(Stdio::null()).status();
        if let Err(error) = opened.and_then(|_| dir.close()) {
            println!("left behind: {error}");
        }
    }
}

/// A mount that ends with its test.
pub(crate) struct Mounted<'a> {
    place: &'a Place,
    /// What `layerfs mount` printed: the container.
    pub(crate) id: String,
}

impl Mounted<'_> {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.mnt().join(name)
    }

    /// Ends the mount in the ordinary way and waits for its server.
    #[track_caller]
    pub(crate) fn unmount(self) {
        let done = self.place.layerfs(&[OsStr::new("umount"), self.place.mnt().as_os_str()]);
        assert_eq!(done.code, 0, "{done:#?}");
        self.place.nothing_left();
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        force_unmount(&self.place.mnt());
    }
}

pub(crate) fn force_unmount(dir: &Path) {
    if is_mounted(dir) {
        let (program, option) = if is_root() { ("umount", "-l") } else { ("fusermount3", "-uz") };
        let status = Command::new(program).arg(option).arg(dir).status().unwrap();
        println!("{program} {option}: {status}");
    }
}

pub(crate) fn is_mounted(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == dir.to_str())
}

/// Waits up to a minute for something that happens by itself.
pub(crate) fn eventually(mut happened: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if happened() {
            return true;
        }
        sleep(Duration::from_millis(20));
    }
    happened()
}

/// Compares two trees or listings; see `tests/support/tree.py`.
#[track_caller]
pub(crate) fn assert_same_tree(what: &str, options: &[&str], expected: &Path, found: &Path) {
    let mut command = Command::new("python3");
    command.arg(support_file("tree.py")).arg("diff").args(options).args([expected, found]);
    let done = finish(&mut command);
    assert_eq!(done.code, 0, "{what}: A is what it should be, B what it is\n{}{}", done.out, done.err);
}

pub(crate) fn sha256(path: &Path) -> String {
    let done = finish(Command::new("sha256sum").arg("--").arg(path));
    done.ok().split(' ').next().unwrap().to_owned()
}

/// A writable copy of a file or a tree, with its times.
pub(crate) fn copy(from: &Path, to: &Path) {
    shell("cp -a -- \"$1\" \"$2\" && chmod -R u+rwX -- \"$2\"", &[from, to]).ok();
}
