//! Patterns of file names as Go's `path.Match` has them, by which docker and podman filter names of images: `*` and `?` stop at a
//! slash, `[a-z]` and `[^a-z]` are one of some characters, `\` takes away the meaning of what follows.

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Char(char),
    AnyChar,
    AnyChars,
    OneOf { not: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// Understands it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            pieces.push(match char {
                '*' => Piece::AnyChars,
                '?' => Piece::AnyChar,
                '\\' => Piece::Char(chars.next().ok_or("nothing follows the last \\")?),
                '[' => set(&mut chars)?,
                char => Piece::Char(char),
            });
        }
        Ok(Self(pieces))
    }

    /// Whether it is the whole text, in time that grows with the product of both lengths only.
    pub(super) fn is(&self, text: &str) -> bool {
        // All places in the pattern that the text read so far can have led to.
        let mut places = vec![false; self.0.len() + 1];
        self.enter(0, &mut places);
        for char in text.chars() {
            let mut next = vec![false; places.len()];
            for (place, piece) in self.0.iter().enumerate().filter(|(place, _)| places[*place]) {
                match piece {
                    Piece::AnyChars if char != '/' => self.enter(place, &mut next),
                    Piece::AnyChar if char != '/' => self.enter(place + 1, &mut next),
                    Piece::Char(wanted) if *wanted == char => self.enter(place + 1, &mut next),
                    Piece::OneOf { not, ranges } if char != '/' => {
                        let is_in = ranges.iter().any(|(first, last)| (*first..=*last).contains(&char));
                        if is_in != *not {
                            self.enter(place + 1, &mut next);
                        }
                    }
                    _ => {}
                }
            }
            places = next;
        }
        places[self.0.len()]
    }

    /// A place, and those behind it that nothing has to be read for.
    fn enter(&self, place: usize, places: &mut [bool]) {
        for (at, is_reached) in places.iter_mut().enumerate().skip(place) {
            *is_reached = true;
            if self.0.get(at) != Some(&Piece::AnyChars) {
                break;
            }
        }
    }
}

fn set(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Piece, String> {
    let open = || "a [ without its ]".to_owned();
    let not = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let mut one = || match chars.next() {
            Some('\\') => chars.next(),
            other => other,
        };
        let first = one().ok_or_else(open)?;
        if first == ']' && !ranges.is_empty() {
            return Ok(Piece::OneOf { not, ranges });
        }
        let last = match chars.next_if_eq(&'-') {
            Some(_) => chars.next().filter(|last| *last != ']').ok_or_else(open)?,
            None => first,
        };
        ranges.push((first, last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_has_it() {
        for (pattern, text, expected) in [
            ("debian", "debian", true),
            ("debian", "debian:12", false),
            ("deb*", "debian:12", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]a]", "]", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*a*a*b", "aaaaaaaaaaaaaaaaaaaaaab", true),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(Glob::parse(pattern).unwrap().is(text), expected, "{pattern} {text}");
        }
        let long = Glob::parse(&"*a".repeat(500)).unwrap();
        assert!(!long.is(&"a".repeat(400)) && long.is(&"a".repeat(600)));
        for wrong in ["[", "[a", "a\\", "[a-", "[a-]"] {
            assert!(Glob::parse(wrong).is_err(), "{wrong}");
        }
    }
}
