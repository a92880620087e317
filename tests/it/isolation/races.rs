//! Attacks that have to hit a moment: each is tried as often as `LAYERFS_TEST_RACES` says.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn races() -> usize {
    std::env::var("LAYERFS_TEST_RACES").map_or(15, |number| number.parse().unwrap())
}

/// A container that keeps exchanging `x` in a volume with symlinks to places that others should not get to.
struct Swapper {
    place: Place,
}

/// What no container may read, or change.
const SECRET: &str = "of the host";

impl Swapper {
    fn new() -> Self {
        let place = Place::new();
        for name in ["shared", "victim", "data", "out"] {
            fs::create_dir(place.path(name)).unwrap();
        }
        for name in ["victim/f", "victim/null", "data/exec", "data/oom_score_adj"] {
            fs::write(place.path(name), SECRET).unwrap();
        }
        let swapper = Self { place };
        let (script, shared) = (volume("intruder.py"), swapper.volume("shared", "/shared"));
        let (victim, image) = (swapper.text("victim"), debian());
        let up = format!("{}{victim}", "../".repeat(12));
        let targets = [
            "/proc/self/attr",
            "/proc/self",
            "/proc/sys/kernel",
            &victim,
            "/proc/1/root/..",
            "/proc/self/fd",
            "/dev/pts",
            "/proc/self/attr",
            "/proc/sys/kernel",
            "/",
            &up,
        ];
        let run = ["run", "-d", "-q", "--name", "one", "-w", "/", "-v", &script, "-v", &shared];
        let command = [image.to_str().unwrap(), "python3", "/intruder.py", "swap", "/shared"];
        swapper.place.layerfs(&[&run[..], &command, &targets].concat()).ok();
        assert!(eventually(|| swapper.place.path("shared/swapping").exists()), "nothing is exchanged");
        swapper
    }

    fn text(&self, name: &str) -> String {
        self.place.path(name).to_str().unwrap().to_owned()
    }

    fn volume(&self, name: &str, destination: &str) -> String {
        format!("{}:{destination}", self.text(name))
    }

    #[track_caller]
    fn victim_is_untouched(&self) {
        let mut names: Vec<_> = fs::read_dir(self.place.path("victim"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["f", "null"]);
        for name in names {
            assert_eq!(fs::read_to_string(self.place.path("victim").join(name)).unwrap(), SECRET);
        }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.place.layerfs(&["rm", "-f", "one"]);
    }
}

/// What a container that starts meanwhile sees of `/proc` is what it always sees.
#[test]
fn a_shared_volume_that_changes() {
    needs_debian!();
    let swapper = Swapper::new();
    let place = &swapper.place;
    let tiny = image("tiny").join("docker-gzip.tar");
    let script = r"
        cut -d' ' -f5 /proc/self/mountinfo | grep '^/proc' | sort
        for file in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do test ! -e $file || stat -c '%n %t:%T' $file; done
        cat /proc/self/oom_score_adj
        for dir in /proc/acpi /sys/firmware; do ls $dir; done
        touch /proc/sys/kernel/x 2>/dev/null && echo made; (echo $(cat /proc/sys/kernel/panic) >/proc/sys/kernel/panic) 2>/dev/null && echo written
        :";
    let start = |options: &[&str]| {
        let options = [&["-w", "/", "--oom-score-adj", "777"], options].concat();
        run(place, &options, &tiny, &["sh", "-c", script])
    };
    let expected = start(&[]);
    assert!(expected.ok().contains("\n777") && expected.ok().contains("/proc/keys 1:3"), "{expected:#?}");
    let shared = swapper.volume("shared", "/shared");
    let deep = swapper.volume("data", "/shared/x/sub");
    let file = swapper.volume("data/exec", "/shared/x/comm");
    let onto = swapper.volume("data", "/shared/x");
    let onto_dev = swapper.volume("shared", "/dev");
    let kinds: [&[&str]; 9] = [
        &["-v", &shared, "-v", &onto],
        &["-v", &shared, "-v", &onto],
        &["-v", &shared, "-v", &deep],
        &["-v", &shared, "-v", &onto],
        &["-v", &shared, "--tmpfs", "/shared/x"],
        &["-v", &shared, "-v", &file],
        &["-v", &shared, "--security-opt", "mask=/shared/x/null"],
        &["-v", &shared, "-w", "/shared/x"],
        &["-v", &onto_dev, "-v", "/dev/null:/dev/x/null"],
    ];
    let mut started = 0;
    for (number, options) in kinds.iter().cycle().take(races() * kinds.len()).enumerate() {
        let done = start(options);
        match done.code {
            0 => assert_eq!(done.out, expected.out, "{number} {options:?}"),
            125 => assert_eq!(done.out, "", "{number} {options:?}: {done:#?}"),
            _ => panic!("{number} {options:?}: {done:#?}"),
        }
        started += usize::from(done.code == 0);
    }
    assert!(started > races(), "only {started} have started");
    swapper.victim_is_untouched();
}

/// In both directions, of a container that runs.
#[test]
fn copies_while_paths_change() {
    needs_debian!();
    let swapper = Swapper::new();
    fs::write(swapper.place.path("new"), "new").unwrap();
    let (new, out) = (swapper.text("new"), swapper.text("out"));
    let mut copied = [0; 2];
    for _ in 0..races() {
        for to in ["one:/shared/x/f", "one:/shared/x/new", "one:/shared/x/"] {
            copied[0] += usize::from(swapper.place.layerfs(&["cp", &new, to]).code == 0);
        }
        for from in ["one:/shared/x/f", "one:/shared/x/sub", "one:/shared/x/null"] {
            copied[1] += usize::from(swapper.place.layerfs(&["cp", from, &out]).code == 0);
        }
        let found = finish(Command::new("grep").args(["-rl", SECRET]).arg(&out));
        assert_eq!(found.out, "", "what is on the host was copied out of a container");
    }
    assert!(copied[0] > 0 && copied[1] > 0, "{copied:?}");
    swapper.victim_is_untouched();
}

#[test]
fn consoles_of_an_image() {
    needs_mount!();
    let script = "test -c /dev/console && test -c /dev/pts/0 && test -t 0 && stat -Lc %t /dev/ptmx && echo seen >/dev/console";
    for number in 0..races() * 2 {
        let hostile = Hostile::new();
        for name in ["pts", "shm", "mqueue"] {
            fs::create_dir_all(hostile.path("dev").join(name)).unwrap();
        }
        let victim = hostile.victim().join("file");
        for name in ["dev/console", "dev/ptmx", "dev/pts/0", "dev/pts/ptmx", "dev/tty"] {
            let file = hostile.path(name);
            match number % 4 {
                0 => symlink(&victim, file).unwrap(),
                1 => symlink("/proc/sysrq-trigger", file).unwrap(),
                2 => fs::write(file, "").unwrap(),
                _ => fs::create_dir(file).unwrap(),
            }
        }
        // As a volume it is the /dev of the container, whose console has to be a file.
        let own = format!("{}:/dev", hostile.path("dev").display());
        let done = at_a_terminal(
            &hostile.place,
            &["-t", "-v", &own],
            &hostile.place.path("image"),
            &["sh", "-c", ":"],
        );
        assert_eq!(done.code, if number % 4 == 2 { 0 } else { 125 }, "{number}: {done:#?}");
        let done =
            at_a_terminal(&hostile.place, &["-t"], &hostile.place.path("image"), &["sh", "-ec", script]);
        assert_eq!(done.ok().split_whitespace().collect::<Vec<_>>(), ["5", "seen"], "{number}");
        hostile.victim_is_untouched();
    }
}
