//! Patterns of paths: wildcards of `COPY`, and `.dockerignore`.

/// The patterns of a `.dockerignore`.
#[derive(Clone, Debug, Default)]
pub(super) struct Ignored(Vec<Pattern>);

#[derive(Clone, Debug)]
struct Pattern {
    segments: Vec<Vec<u8>>,
    /// It brings back what patterns before it took away.
    brings_back: bool,
}

impl Ignored {
    pub(super) fn parse(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let lines = lines.filter(|line| !line.is_empty() && line[0] != b'#');
        let pattern = |line: &[u8]| {
            let (brings_back, line) = match line.strip_prefix(b"!") {
                Some(line) => (true, line.trim_ascii()),
                None => (false, line),
            };
            Pattern { segments: segments(line), brings_back }
        };
        Self(lines.map(pattern).filter(|pattern| !pattern.segments.is_empty()).collect())
    }

    /// Whether a path of the context does not exist for the build. The last pattern that matches it, or a directory
    /// that it is in, decides.
    pub(super) fn hides(&self, path: &[u8]) -> bool {
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let mut hidden = false;
        for pattern in &self.0 {
            if (1..=names.len()).any(|length| matches(&pattern.segments, &names[..length])) {
                hidden = !pattern.brings_back;
            }
        }
        hidden
    }

    /// Whether something in a hidden directory may be brought back.
    pub(super) fn has_exceptions(&self) -> bool {
        self.0.iter().any(|pattern| pattern.brings_back)
    }
}

/// The names of a path, without those that lead nowhere.
pub(super) fn segments(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.map(<[u8]>::to_vec).collect()
}

/// Whether a text has wildcards in it.
pub(super) fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[\\".contains(byte))
}

/// Whether the names are those of the pattern; `**` stands for any number of names.
pub(super) fn matches(pattern: &[Vec<u8>], names: &[&[u8]]) -> bool {
    match (pattern, names) {
        ([], names) => names.is_empty(),
        ([first, rest @ ..], names) if first == b"**" => {
            (0..=names.len()).any(|skipped| matches(rest, &names[skipped..]))
        }
        ([first, rest @ ..], [name, names @ ..]) => matches_name(first, name) && matches(rest, names),
        (_, []) => false,
    }
}

/// One name, by the rules of Go's `filepath.Match`.
fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], name) => name.is_empty(),
        ([b'*', rest @ ..], name) => (0..=name.len()).any(|taken| matches_name(rest, &name[taken..])),
        ([b'?', rest @ ..], [_, name @ ..]) => matches_name(rest, name),
        ([b'[', rest @ ..], [byte, name @ ..]) => match class(rest, *byte) {
            Some((true, rest)) => matches_name(rest, name),
            _ => false,
        },
        ([b'\\', literal, rest @ ..] | [literal, rest @ ..], [byte, name @ ..]) => {
            literal == byte && matches_name(rest, name)
        }
        (_, []) => false,
    }
}

/// Whether a byte is in the class that begins here, and what comes after it; `None` when it has no end.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    let mut first = true;
    loop {
        match rest {
            [b']', after @ ..] if !first => return Some((found != negated, after)),
            [low, b'-', high, after @ ..] if *high != b']' => {
                found |= (*low..=*high).contains(&byte);
                rest = after;
            }
            [one, after @ ..] => {
                found |= *one == byte;
                rest = after;
            }
            [] => return None,
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, path: &str) -> bool {
        let names: Vec<&[u8]> = path.as_bytes().split(|byte| *byte == b'/').collect();
        matches(&segments(pattern.as_bytes()), &names)
    }

    #[test]
    fn wildcards() {
        for (pattern, path) in [
            ("*.c", "a.c"),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("[^a]x", "bx"),
            ("**/x", "x"),
            ("**/x", "a/b/x"),
        ] {
            assert!(fits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in
            [("*.c", "d/a.c"), ("a?c", "ac"), ("[a-c]x", "dx"), ("[^a]x", "ax"), ("[a", "a"), ("\\*", "a")]
        {
            assert!(!fits(pattern, path), "{pattern} {path}");
        }
        assert!(fits("\\*", "*") && fits("/a/./b/", "a/b") && fits("a/**/b", "a/b"));
    }

    #[test]
    fn the_last_pattern_decides() {
        let ignored = Ignored::parse(b"# comment\n*.log\n!keep.log\nbuild/\n**/cache\n\n!build/out");
        for hidden in ["a.log", "build", "build/x/y", "a/b/cache", "a/cache/x"] {
            assert!(ignored.hides(hidden.as_bytes()), "{hidden}");
        }
        for shown in ["keep.log", "sub/a.log", "build/out", "build/out/x"] {
            assert!(!ignored.hides(shown.as_bytes()), "{shown}");
        }
    }
}
