//! What is done: operations of all kinds, each by one of several workers.

use super::data::{length, offset};
use super::dice::Dice;
use super::layers::{BIG, OWN, path};
use super::likely::Likely;
use super::workers::WORKERS;

/// Slots for open files of each worker.
const SLOTS: u64 = 4;
/// Bytes of a shared file that belong to one worker while all work at the same time.
const STRIPE: u64 = 3000;

/// What steps are chosen from.
struct Chooser<'a> {
    dice: &'a mut Dice,
    likely: Likely,
    /// Who acts.
    worker: usize,
    /// Slots of each worker that mostly hold an open file.
    open: [Vec<u64>; WORKERS],
}

/// The lines of some dozen steps upon an image.
pub(super) fn steps(dice: &mut Dice, image: &[String]) -> Vec<String> {
    let count = 10 + dice.below(70);
    let mut chooser = Chooser { dice, likely: Likely::new(image), worker: 0, open: Default::default() };
    let mut lines = Vec::new();
    while (lines.len() as u64) < count {
        chooser.worker = chooser.dice.index(WORKERS);
        match chooser.dice.below(100) {
            0..3 => {
                lines.push(chooser.dice.weighted(&[(2, "remount"), (1, "kill")]).to_owned());
                chooser.open.iter_mut().for_each(Vec::clear);
            }
            3..6 => lines.push("check".to_owned()),
            6 => chooser.together(&mut lines),
            7 => {
                let path = chooser.file();
                lines.push(format!("race {path} {}", 5 + chooser.dice.below(40)));
            }
            _ => {
                let line = chooser.step();
                lines.push(format!("{} {line}", chooser.worker));
            }
        }
    }
    lines
}

impl Chooser<'_> {
    fn path(&mut self) -> String {
        self.likely.any(self.dice)
    }

    /// More often than not a file that takes content.
    fn file(&mut self) -> String {
        self.likely.file(self.dice)
    }

    /// More often than not a path that leads nowhere yet.
    fn new_path(&mut self) -> String {
        if self.dice.percent(60) { path(self.dice) } else { self.path() }
    }

    fn new_file(&mut self) -> String {
        let path = self.new_path();
        self.likely.appears(&path, true);
        path
    }

    /// Mostly one that holds an open file.
    fn open_slot(&mut self) -> u64 {
        let open = &self.open[self.worker];
        if open.is_empty() { self.slot() } else { open[self.dice.index(open.len())] }
    }

    fn slot(&mut self) -> u64 {
        self.dice.below(SLOTS)
    }

    fn mode(&mut self) -> &'static str {
        self.dice.weighted(&[
            (4, "644"),
            (3, "755"),
            (2, "777"),
            (1, "6755"),
            (1, "2750"),
            (1, "1777"),
            (1, "0"),
        ])
    }

    fn owner(&mut self) -> &'static str {
        self.dice.weighted(&[(2, "0"), (2, "1000"), (1, "7"), (2, "-1")])
    }

    /// Offset and length in a file.
    fn range(&mut self, file: &str) -> String {
        let big = self.likely.is_big(file);
        format!("{} {}", offset(self.dice, big), length(self.dice, big))
    }

    fn any_range(&mut self) -> String {
        let big = self.dice.percent(60);
        format!("{} {}", offset(self.dice, big), length(self.dice, big))
    }

    fn seed(&mut self) -> u64 {
        self.dice.below(9)
    }

    /// fallocate(2): most modes that there are.
    fn allocation(&mut self) -> &'static str {
        self.dice.weighted(&[
            (3, "0"),
            (3, "1"),
            (5, "3"),
            (3, "16"),
            (3, "17"),
            (1, "8"),
            (1, "32"),
            (1, "2"),
            (1, "64"),
        ])
    }

    fn step(&mut self) -> String {
        match self.dice.below(100) {
            0..38 => self.name(),
            38..54 => self.attribute(),
            54..78 => self.content(),
            _ => self.descriptor(),
        }
    }

    fn name(&mut self) -> String {
        let mode = self.mode();
        match self.dice.below(36) {
            0..3 => format!("create {} {mode}", self.new_file()),
            3..6 => {
                let path = self.new_path();
                self.likely.appears(&path, false);
                format!("mkdir {path} {mode}")
            }
            6 => {
                let kind = self.dice.pick(&["fifo", "sock", "null", "zero", "file"]);
                format!("mknod {} {kind} {mode}", self.new_path())
            }
            7 => format!("symlink {} {}", self.new_path(), self.dice.pick(&["a", "../c", "x/y/z"])),
            8..11 => {
                let path = self.path();
                format!("link {path} {}", self.new_file())
            }
            11..14 => {
                let path = self.path();
                self.likely.goes(&path);
                format!("unlink {path}")
            }
            14..16 => format!("rmdir {}", self.path()),
            16..27 => self.rename(),
            27..29 => {
                let path = self.path();
                self.likely.goes(&path);
                format!("rmtree {path} {}", self.dice.weighted(&[(1, 64), (1, 100), (1, 4096)]))
            }
            _ => self.look(),
        }
    }

    fn rename(&mut self) -> String {
        let flags = self.dice.weighted(&[(9, 0), (3, 1), (5, 2), (1, 4)]);
        let from = self.path();
        let to = if flags == 2 { self.path() } else { self.new_path() };
        if flags != 2 {
            self.likely.moves(&from, &to);
        }
        format!("rename {from} {to} {flags}")
    }

    fn look(&mut self) -> String {
        let path = self.path();
        match self.dice.below(7) {
            0 => format!("list {path} {} {}", self.dice.weighted(&[(1, 64), (1, 4096)]), self.dice.below(6)),
            1 => format!("scan {path} {} {}", self.dice.weighted(&[(1, 64), (1, 4096)]), self.dice.below(6)),
            2 => format!("chdir {path}"),
            3 => "home".to_owned(),
            4 => format!("umask {}", self.dice.pick(&["022", "0", "077", "027"])),
            5 => format!("access {path} {}", self.dice.below(8)),
            _ => format!("stat {path}"),
        }
    }

    fn attribute(&mut self) -> String {
        let path = self.path();
        let attribute = self.dice.weighted(&[
            (4, "user.a"),
            (3, "user.b"),
            (2, "trusted.x"),
            (1, "user.overlay.opaque"),
            (1, "trusted.overlay.layerfs.ino"),
            (1, "user.containers.override_stat"),
        ]);
        match self.dice.below(16) {
            0..4 => format!("chmod {path} {}", self.mode()),
            4..7 => format!("chown {path} {} {}", self.owner(), self.owner()),
            7..9 => format!("utimens {path} {} {}", self.time(), self.time()),
            9 => format!("touch {path}"),
            10..13 => {
                let length = self.dice.weighted(&[(4, 5), (1, 0), (1, 500)]);
                format!(
                    "setxattr {path} {attribute} {length} {} {}",
                    self.seed(),
                    self.dice.weighted(&[(6, 0), (1, 1), (1, 2)])
                )
            }
            13 => format!("rmxattr {path} {attribute}"),
            14 => format!("setcap {path}"),
            _ => format!(
                "setacl {path} {} 1000 {}",
                self.dice.pick(&["access", "default"]),
                self.dice.below(8)
            ),
        }
    }

    fn time(&mut self) -> &'static str {
        self.dice.weighted(&[
            (2, "1234567890987654321"),
            (1, "-1"),
            (1, "-86400000000001"),
            (1, "0"),
            (1, "4300000000000000007"),
        ])
    }

    fn content(&mut self) -> String {
        let file = self.file();
        let range = self.range(&file);
        let seed = self.seed();
        match self.dice.below(30) {
            0..8 => format!("write {file} {range} {seed}"),
            8..11 => format!("read {file} {range}"),
            11..13 => format!("append {file} {} {seed}", length(self.dice, false)),
            13 => format!("replace {file} {} {seed}", length(self.dice, true)),
            14..17 => format!("truncate {file} {}", offset(self.dice, self.likely.is_big(&file))),
            17..19 => {
                let what = self.dice.pick(&["read", "write"]);
                format!("direct {file} {what} {} {} {seed}", self.dice.below(900), 1 + self.dice.below(40))
            }
            19..23 => format!("fallocate {file} {} {range}", self.allocation()),
            23..27 => {
                let other = self.file();
                format!("copyrange {file} {} {other} {range}", offset(self.dice, true))
            }
            _ => format!("holes {file}"),
        }
    }

    fn descriptor(&mut self) -> String {
        if self.open[self.worker].is_empty() || self.dice.percent(25) {
            return self.open();
        }
        let slot = self.open_slot();
        if self.dice.percent(50) { self.open_content(slot) } else { self.open_attribute(slot) }
    }

    fn open(&mut self) -> String {
        let slot = self.slot();
        let flags =
            self.dice.weighted(&[(5, "rw"), (3, "r"), (1, "w"), (2, "a"), (2, "c"), (1, "t"), (1, "p")]);
        self.open[self.worker].push(slot);
        format!("open {slot} {} {flags}", self.file())
    }

    fn open_content(&mut self, slot: u64) -> String {
        let range = self.any_range();
        let seed = self.seed();
        match self.dice.below(22) {
            0..4 => format!("fwrite {slot} {range} {seed}"),
            4..6 => format!("fread {slot} {range}"),
            6..8 => format!("ftruncate {slot} {}", self.dice.below(5 << 20)),
            8..11 => format!("ffallocate {slot} {} {range}", self.allocation()),
            11..14 => format!("fcopyrange {slot} {} {} {range}", offset(self.dice, true), self.open_slot()),
            14 => format!("fholes {slot}"),
            15..17 => format!("map {slot} {}", self.dice.weighted(&[(3, "rw"), (1, "r")])),
            17 => format!("mapread {slot} {range}"),
            18..21 => format!("mapwrite {slot} {range} {seed}"),
            _ => format!("{} {slot}", self.dice.pick(&["mapsync", "unmap"])),
        }
    }

    fn open_attribute(&mut self, slot: u64) -> String {
        match self.dice.below(12) {
            0 => format!("reopen {slot} {} {}", self.slot(), self.dice.pick(&["r", "rw", "t"])),
            1 => {
                self.open[self.worker].retain(|open| *open != slot);
                format!("close {slot}")
            }
            2 => format!("fchmod {slot} {}", self.mode()),
            3 => format!("fchown {slot} {} {}", self.owner(), self.owner()),
            4 => format!("fsetxattr {slot} user.a 7 {} 0", self.seed()),
            5 => format!("futimens {slot} {} {}", self.time(), self.time()),
            6..9 => format!("fstat {slot}"),
            9 => format!("{} {slot}", self.dice.pick(&["fsync", "fdatasync"])),
            10 => format!("flock {slot} {}", self.dice.pick(&["sh", "ex", "un"])),
            _ => format!("lockf {slot} {} {} 10", self.dice.pick(&["sh", "ex", "un"]), self.dice.below(30)),
        }
    }

    /// Steps that all workers do at the same time, because none can see another's: in directories of their own, and
    /// in stripes of a shared file.
    fn together(&mut self, lines: &mut Vec<String>) {
        let shared = self.dice.pick(&BIG).to_owned();
        for _ in 0..6 + self.dice.below(20) {
            let worker = self.dice.index(WORKERS);
            let line =
                if self.dice.percent(50) { self.stripe(&shared, worker) } else { self.own(OWN[worker]) };
            lines.push(format!("| {worker} {line}"));
        }
    }

    fn stripe(&mut self, file: &str, worker: usize) -> String {
        let at = (self.dice.below(100) * WORKERS as u64 + worker as u64) * STRIPE;
        let skip = self.dice.below(STRIPE / 2);
        let length = 1 + self.dice.below(STRIPE - skip - 1);
        match self.dice.percent(70) {
            true => format!("write {file} {} {length} {}", at + skip, self.seed()),
            false => format!("readpart {file} {} {length}", at + skip),
        }
    }

    fn own(&mut self, directory: &str) -> String {
        let mut inner = || format!("{directory}/{}", self.dice.pick(&["f", "d", "d/g", "n", "d/n"]));
        let (one, other) = (inner(), inner());
        match self.dice.below(9) {
            0 => format!("create {one} 644"),
            1 => format!("mkdir {one} 755"),
            2 => format!("unlink {one}"),
            3..5 => format!("rename {one} {other} {}", self.dice.weighted(&[(3, 0), (1, 1), (1, 2)])),
            5 => format!("link {one} {other}"),
            6 => format!("rmtree {one} 100"),
            _ => format!("write {one} {} {}", self.any_range(), self.seed()),
        }
    }
}
