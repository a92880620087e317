//! Random scripts upon a mount and upon an oracle, a plain directory of the filesystem below, by several processes.
//!
//! A script is lines of text: the layers of an image (`tests/support/random_layers.py` says what they mean), `steps`,
//! then one operation a line, with the worker that does it (`tests/support/random_worker.py` has them). After each step
//! the results are compared, now and then the whole trees. A script that fails is shortened and printed.
//!
//! - `LAYERFS_RANDOM_SECONDS`: how long to try new scripts (25)
//! - `LAYERFS_RANDOM_SEQUENCES`: how many scripts to try, whatever the time
//! - `LAYERFS_RANDOM_SEED`: where to begin; printed by every run
//! - `LAYERFS_RANDOM_SCRIPT`: a file with a script: only that one is run

mod data;
mod dice;
mod layers;
mod likely;
mod script;
mod shorten;
mod steps;
mod workers;
mod world;

use std::time::{Duration, Instant};

use dice::Dice;
use script::Script;
use world::World;

/// Scripts upon the same image: building images takes longer than mounting them.
const SCRIPTS_PER_IMAGE: u64 = 6;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().filter(|text| !text.is_empty()).map(|text| text.parse().unwrap())
}

/// The script of a seed: neighbours share their image.
fn script_of(seed: u64) -> Script {
    let image = layers::image(&mut Dice::new(seed / SCRIPTS_PER_IMAGE));
    let steps = steps::steps(&mut Dice::new(!seed), &image);
    Script { image, steps }
}

fn seed_of_the_day() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos()) * SCRIPTS_PER_IMAGE
}

#[test]
fn random_scripts_give_what_a_plain_directory_gives() {
    needs_mount!();
    let mut world = World::new();
    if let Some(path) = std::env::var_os("LAYERFS_RANDOM_SCRIPT") {
        let script = Script::parse(&std::fs::read_to_string(path).unwrap());
        if let Err(failure) = world.run(&script) {
            panic!("{failure}");
        }
        return;
    }
    let first = number("LAYERFS_RANDOM_SEED").unwrap_or_else(seed_of_the_day);
    let seconds = number("LAYERFS_RANDOM_SECONDS").unwrap_or(25);
    let count = number("LAYERFS_RANDOM_SEQUENCES");
    let start = Instant::now();
    let mut done = 0;
    while count.map_or(start.elapsed() < Duration::from_secs(seconds), |count| done < count) {
        let seed = first.wrapping_add(done);
        let script = script_of(seed);
        if let Err(failure) = world.run(&script) {
            let short = shorten::shorten(&mut world, &script, &failure);
            let again = world.run(&short).err();
            let said =
                again.map_or_else(|| "it did not fail again".to_owned(), |failure| failure.to_string());
            panic!("seed {seed}: {failure}\nshortened:\n{}\n{said}", short.text());
        }
        done += 1;
    }
    println!("{done} scripts from seed {first} in {:.0?}", start.elapsed());
}
