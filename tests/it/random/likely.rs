//! What is probably there: a guess that makes most steps meet something, right or not.

use super::dice::Dice;
use super::layers::{BIG, OWN, path};

/// A path that may lead to something.
#[derive(Clone, Debug)]
struct Guess {
    path: String,
    is_file: bool,
    is_big: bool,
}

/// All guesses.
#[derive(Debug)]
pub(super) struct Likely(Vec<Guess>);

impl Likely {
    /// What an image's lines name, without that which belongs to one worker.
    pub(super) fn new(image: &[String]) -> Self {
        let mut likely = Self(Vec::new());
        for line in image {
            let mut words = line.split(' ');
            let (verb, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let is_object = matches!(verb, "dir" | "file" | "symlink" | "special" | "link");
            if is_object && path != "." && !OWN.iter().any(|own| path.starts_with(own)) {
                likely.appears(path, matches!(verb, "file" | "link"));
            } else if verb == "whiteout" {
                likely.goes(path);
            }
        }
        likely
    }

    pub(super) fn appears(&mut self, path: &str, is_file: bool) {
        self.0.retain(|guess| guess.path != path);
        self.0.push(Guess { path: path.to_owned(), is_file, is_big: BIG.contains(&path) });
    }

    pub(super) fn goes(&mut self, path: &str) {
        self.0.retain(|guess| !is_within(&guess.path, path));
    }

    pub(super) fn moves(&mut self, from: &str, to: &str) {
        let moved: Vec<_> = self.0.iter().filter(|guess| is_within(&guess.path, from)).cloned().collect();
        self.goes(from);
        self.goes(to);
        self.0.extend(
            moved
                .into_iter()
                .map(|guess| Guess { path: format!("{to}{}", &guess.path[from.len()..]), ..guess }),
        );
    }

    pub(super) fn is_big(&self, path: &str) -> bool {
        self.0.iter().any(|guess| guess.is_big && guess.path == path)
    }

    /// A path that mostly leads to something.
    pub(super) fn any(&self, dice: &mut Dice) -> String {
        self.one(dice, |_| true)
    }

    /// A path that mostly leads to a regular file, often to a large one.
    pub(super) fn file(&self, dice: &mut Dice) -> String {
        if dice.percent(50) {
            self.one(dice, |guess| guess.is_big)
        } else {
            self.one(dice, |guess| guess.is_file)
        }
    }

    fn one(&self, dice: &mut Dice, which: impl Fn(&Guess) -> bool) -> String {
        let found: Vec<_> = self.0.iter().filter(|guess| which(guess)).collect();
        if found.is_empty() || dice.percent(15) {
            path(dice)
        } else {
            found[dice.index(found.len())].path.clone()
        }
    }
}

fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
