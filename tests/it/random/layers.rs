//! Images that a script works upon: few names, so that layers meet, and files large enough for extents to matter.

use super::data;
use super::dice::Dice;
use crate::support::is_root;

/// Names that trees are made of.
pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];
/// Where symlinks lead: never outside, wherever they are moved.
pub(super) const TARGETS: [&str; 4] = ["a", "b/c", "big", "x/y/z"];
/// Directories that one worker has to itself while all work at the same time.
pub(super) const OWN: [&str; 3] = ["p0", "p1", "p2"];
/// Files of a few MiB.
pub(super) const BIG: [&str; 4] = ["big", "sparse", "a/big", "b/sparse"];

/// The lines of an image.
pub(super) fn image(dice: &mut Dice) -> Vec<String> {
    let form = dice.weighted(&[(5, "docker"), (3, "gzip"), (2, "dir")]);
    let user = dice.weighted(&[(2, "0"), (1, "1000")]);
    let writes = dice.weighted(&[(3, "through"), (1, "back"), (1, "passed")]);
    let mut lines = vec![format!("image {form} {user} {writes}")];
    let layers = 1 + dice.below(3);
    for number in 0..layers {
        lines.push("layer".to_owned());
        if number == 0 {
            base(dice, &mut lines);
        }
        for _ in 0..3 + dice.below(14) {
            let line = object(dice, number > 0, form == "dir");
            lines.push(line);
        }
    }
    lines
}

fn base(dice: &mut Dice, lines: &mut Vec<String>) {
    lines.push(format!("dir . 755 0 0 {}", mtime(dice)));
    for path in ["a", "b"] {
        lines.push(format!(
            "dir {path} {} {} {} {}",
            mode(dice, true),
            owner(dice),
            owner(dice),
            mtime(dice)
        ));
    }
    for path in OWN {
        lines.push(format!("dir {path} 777 0 0 {}", mtime(dice)));
        lines.push(format!("file {path}/f 666 0 0 {} {}", mtime(dice), data::small(dice)));
        lines.push(format!("dir {path}/d 777 0 0 {}", mtime(dice)));
        lines.push(format!("file {path}/d/g 666 0 0 {} {}", mtime(dice), data::small(dice)));
    }
    for path in BIG {
        let content = if path.ends_with("sparse") { data::sparse(dice) } else { data::big(dice) };
        lines.push(format!("file {path} 666 {} 0 {} {content}", owner(dice), mtime(dice)));
    }
    if dice.percent(50) {
        lines.push("link a/c big".to_owned());
    }
}

fn object(dice: &mut Dice, above: bool, plain: bool) -> String {
    let path = path(dice);
    let kind = dice.weighted(&[
        (6, "file"),
        (4, "dir"),
        (2, "symlink"),
        (2, "special"),
        (3, "link"),
        (2, "xattr"),
        (if above { 4 } else { 0 }, "whiteout"),
        (if above { 1 } else { 0 }, "opaque"),
    ]);
    let owners = format!("{} {}", owner(dice), owner(dice));
    let mtime = mtime(dice);
    match kind {
        "file" => {
            let content = if dice.percent(10) { data::big(dice) } else { data::small(dice) };
            format!("file {path} {} {owners} {mtime} {content}", readable(mode(dice, false), plain))
        }
        "dir" => format!("dir {path} {} {owners} {mtime}", mode(dice, true)),
        "symlink" => format!("symlink {path} {} {mtime}", dice.pick(&TARGETS)),
        "special" => {
            let kind = if is_root() && dice.percent(30) { "char-1-3" } else { "fifo" };
            format!("special {path} {kind} {} {owners} {mtime}", mode(dice, false))
        }
        "link" => format!("link {path} {}", self::path(dice)),
        "xattr" => format!("xattr {path} user.{} value{}", dice.pick(&["a", "b"]), dice.below(3)),
        verb => format!("{verb} {path}"),
    }
}

/// What an ordinary user's server must be able to read, because it lies there as it is.
fn readable(mode: &'static str, plain: bool) -> &'static str {
    if plain && !is_root() && mode == "0" { "600" } else { mode }
}

fn mode(dice: &mut Dice, directory: bool) -> &'static str {
    if directory {
        dice.weighted(&[(4, "755"), (3, "777"), (1, "1777"), (1, "2775"), (1, "700")])
    } else {
        dice.weighted(&[(4, "644"), (4, "666"), (1, "6755"), (1, "2644"), (1, "0"), (1, "4711")])
    }
}

fn owner(dice: &mut Dice) -> &'static str {
    dice.weighted(&[(4, "0"), (2, "1000"), (1, "7")])
}

fn mtime(dice: &mut Dice) -> &'static str {
    dice.weighted(&[
        (3, "1000000000123456789"),
        (2, "1500000000000000000"),
        (1, "-1500000000"),
        (1, "5000000000000000001"),
    ])
}

/// A path of up to three names.
pub(super) fn path(dice: &mut Dice) -> String {
    let depth = dice.weighted(&[(3, 1), (4, 2), (2, 3)]);
    (0..depth).map(|_| dice.pick(&NAMES)).collect::<Vec<_>>().join("/")
}
