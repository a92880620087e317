//! Contents, and places in them: near the boundaries where filesystems keep their books.

use super::dice::Dice;

/// Bytes in a granule of a layer.
const GRANULE: u64 = 128 << 10;
/// Bytes in a page.
const PAGE: u64 = 4096;
/// Beyond the largest file.
const FAR: u64 = 6 << 20;

/// A file of up to some pages: size and pieces as `random_layers.py` reads them.
pub(super) fn small(dice: &mut Dice) -> String {
    let size = dice.weighted(&[(1, 0), (3, 1), (3, 2), (2, 3)]);
    let size = match size {
        0 => 0,
        1 => 1 + dice.below(100),
        2 => 1 + dice.below(3 * PAGE),
        _ => PAGE * (1 + dice.below(16)),
    };
    whole(dice, size)
}

/// A file of some MiB.
pub(super) fn big(dice: &mut Dice) -> String {
    let size = (256 << 10) + dice.below(3 << 20);
    whole(dice, size)
}

fn whole(dice: &mut Dice, size: u64) -> String {
    if size == 0 { "0".to_owned() } else { format!("{size}:0+{size}*{}", 1 + dice.below(9)) }
}

/// A file that is mostly holes.
pub(super) fn sparse(dice: &mut Dice) -> String {
    let mut pieces = Vec::new();
    let mut at = dice.below(40) * PAGE;
    for _ in 0..dice.below(5) {
        let length = PAGE * (1 + dice.below(30));
        pieces.push(format!("{at}+{length}*{}", 1 + dice.below(9)));
        at += length + PAGE * (1 + dice.below(150));
    }
    format!("{}:{}", at + dice.below(1 << 20), pieces.join(","))
}

/// An offset.
pub(super) fn offset(dice: &mut Dice, big: bool) -> u64 {
    if !big {
        return dice.weighted(&[(3, 9000), (1, 3 * PAGE), (1, 1)]).min(dice.below(9000));
    }
    let base = match dice.below(4) {
        0 => dice.below(FAR / GRANULE) * GRANULE,
        1 => dice.below(FAR / PAGE) * PAGE,
        2 => dice.below(1 << 20),
        _ => dice.below(FAR),
    };
    match dice.below(4) {
        0 => base.saturating_sub(1 + dice.below(100)),
        1 => base + dice.below(100),
        _ => base,
    }
}

/// A length.
pub(super) fn length(dice: &mut Dice, big: bool) -> u64 {
    match dice.below(if big { 6 } else { 3 }) {
        0 => 1 + dice.below(10),
        1 => 1 + dice.below(PAGE),
        2 => PAGE * dice.below(4),
        3 => 1 + dice.below(3 * GRANULE),
        4 => GRANULE * dice.below(6),
        _ => dice.below(1 << 20),
    }
}
