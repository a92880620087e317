//! A small part of regular expressions, enough for names: characters, `.`, `* + ?` behind one of them, `^` and `$`.
//! Matched in time that grows with the product of both lengths only.

/// A pattern that is looked for anywhere in a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    from_start: bool,
    to_end: bool,
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// `None` is any.
    char: Option<char>,
    may_be_missing: bool,
    may_repeat: bool,
}

impl Pattern {
    /// Understands it.
    ///
    /// # Errors
    /// What is not supported.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (from_start, rest) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
        let (to_end, rest) = rest.strip_suffix('$').map_or((false, rest), |rest| (true, rest));
        let mut pieces: Vec<Piece> = Vec::new();
        for char in rest.chars() {
            match (char, pieces.last_mut()) {
                ('*' | '+' | '?', Some(last)) if !last.may_be_missing && !last.may_repeat => {
                    last.may_be_missing = char != '+';
                    last.may_repeat = char != '?';
                }
                ('*' | '+' | '?' | '^' | '$' | '[' | ']' | '(' | ')' | '{' | '}' | '|' | '\\', _) => {
                    return Err(format!("{char:?} is not supported there: characters, . * + ? ^ and $ are"));
                }
                (char, _) => pieces.push(Piece {
                    char: (char != '.').then_some(char),
                    may_be_missing: false,
                    may_repeat: false,
                }),
            }
        }
        Ok(Self { from_start, to_end, pieces })
    }

    /// Whether it is found.
    pub(super) fn is_in(&self, text: &str) -> bool {
        // All places in the pattern that the text read so far can have led to.
        let mut places = vec![false; self.pieces.len() + 1];
        self.enter(0, &mut places);
        for char in text.chars() {
            if places[self.pieces.len()] && !self.to_end {
                return true;
            }
            let mut next = vec![false; places.len()];
            for (place, piece) in self.pieces.iter().enumerate().filter(|(place, _)| places[*place]) {
                if piece.char.is_none_or(|wanted| wanted == char) {
                    self.enter(place + 1, &mut next);
                    if piece.may_repeat {
                        next[place] = true;
                    }
                }
            }
            if !self.from_start {
                self.enter(0, &mut next);
            }
            places = next;
        }
        places[self.pieces.len()]
    }

    /// A place, and those behind it that nothing has to be read for.
    fn enter(&self, place: usize, places: &mut [bool]) {
        for (at, is_reached) in places.iter_mut().enumerate().skip(place) {
            *is_reached = true;
            if !self.pieces.get(at).is_some_and(|piece| piece.may_be_missing) {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_patterns_are() {
        for (pattern, inside, outside) in [
            ("b", &["abc", "b"][..], &["ac", ""][..]),
            ("", &["", "x"], &[]),
            ("^ab", &["abc", "ab"], &["cab", "a"]),
            ("bc$", &["abc"], &["bcd", "b"]),
            ("^web$", &["web"], &["web1", "aweb"]),
            ("w.b", &["web", "xwab"], &["wb"]),
            ("^a.*z$", &["az", "abcz"], &["azb", "z"]),
            ("ab+c", &["abc", "abbbc"], &["ac"]),
            ("^ab?c$", &["abc", "ac"], &["abbc"]),
            ("a*", &["", "b"], &[]),
            ("^a*$", &["", "aaa"], &["ab"]),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            for text in inside {
                assert!(parsed.is_in(text), "{pattern} in {text}");
            }
            for text in outside {
                assert!(!parsed.is_in(text), "{pattern} not in {text}");
            }
        }
        let many = Pattern::parse(&".*".repeat(500)).unwrap();
        assert!(many.is_in(&"a".repeat(255)));
        for wrong in ["[a]", "a|b", "*", "a**", "a^b", "(a)", "\\d", "a{2}"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }
}
