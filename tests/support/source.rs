//! Rust sources as the tidy rules see them: comments gone, literals blanked, test modules and functions found.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// Directories that hold no source of ours.
const SKIPPED: [&str; 5] = ["target", ".git", "corpus", "artifacts", "node_modules"];

/// One source file. `code` and `text` have exactly the lines of the file.
pub(crate) struct Source {
    /// Relative to the repository.
    pub(crate) path: String,
    /// As it lies there.
    pub(crate) text: String,
    /// Without comments, and with the inside of every string and character literal replaced by `s`.
    pub(crate) code: String,
    /// Without comments, literals kept.
    pub(crate) uncommented: String,
    /// Where the `#[cfg(test)]` modules are, in bytes of `code`.
    pub(crate) tests: Vec<Range<usize>>,
}

/// One function with a body.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) offset: usize,
    /// Lines of the body that are neither empty nor only a comment.
    pub(crate) lines: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: String) -> Source {
        let (code, uncommented) = scrub(&text);
        let name = path.rsplit('/').next().unwrap_or(path);
        // By the name that `#[cfg(test)] mod tests;` and its like give it.
        let all = name == "tests.rs" || name.ends_with("_tests.rs") || path.contains("/tests/");
        let tests = if all && path.starts_with("src/") {
            std::iter::once(0..code.len()).collect()
        } else {
            test_modules(&code)
        };
        Source { path: path.to_owned(), text, code, uncommented, tests }
    }

    /// Whether the file lies below `dir` (`src/sys`), or is `dir.rs`.
    pub(crate) fn is_in(&self, dir: &str) -> bool {
        self.path == format!("{dir}.rs") || self.path.starts_with(&format!("{dir}/")) || self.path == dir
    }

    /// The number of the line that holds byte `offset`.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.code.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    pub(crate) fn in_tests(&self, offset: usize) -> bool {
        self.tests.iter().any(|test| test.contains(&offset))
    }

    /// Every place in the code where `word` stands as a token, not as a part of a longer name.
    pub(crate) fn tokens(&self, word: &str) -> Vec<usize> {
        let bytes = self.code.as_bytes();
        let part_of_name = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        let (first, last) = (word.as_bytes()[0], word.as_bytes()[word.len() - 1]);
        self.code
            .match_indices(word)
            .map(|(at, _)| at)
            .filter(|at| !(part_of_name(Some(&first)) && *at > 0 && part_of_name(bytes.get(*at - 1))))
            .filter(|at| !(part_of_name(Some(&last)) && part_of_name(bytes.get(*at + word.len()))))
            .collect()
    }

    /// Lines outside of test modules.
    pub(crate) fn lines_outside_tests(&self) -> usize {
        let in_tests: usize =
            self.tests.iter().map(|test| self.line(test.end - 1) - self.line(test.start) + 1).sum();
        self.text.lines().count() - in_tests
    }

    pub(crate) fn functions(&self) -> Vec<Function> {
        self.tokens("fn").into_iter().filter_map(|at| self.function_at(at)).collect()
    }

    fn function_at(&self, offset: usize) -> Option<Function> {
        let after = self.code[offset + 2..].trim_start();
        let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            return None; // a function pointer type
        }
        let body = body_after(&self.code, offset)?;
        let inside = self.code[body].lines().filter(|line| !line.trim().is_empty()).count();
        Some(Function { name, offset, lines: inside.saturating_sub(2) })
    }

    /// The top-level modules of the crate that this file names, by `crate::x`, `crate::{x, y}` or by enough `super::`.
    pub(crate) fn crate_modules(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for at in self.tokens("crate::") {
            found.extend(heads(&self.code, at + "crate::".len()));
        }
        for at in self.tokens("super::") {
            if self.code[..at].ends_with("super::") {
                continue; // counted with the first of its chain
            }
            let ups = self.code[at..].split("super::").take_while(|between| between.is_empty()).count();
            if ups >= self.depth() + self.inline_modules(at) {
                found.extend(heads(&self.code, at + ups * "super::".len()));
            }
        }
        found
    }

    /// How many modules deep the file is below `src/`.
    fn depth(&self) -> usize {
        let inside = self.path.split_once("src/").map_or("", |(_, rest)| rest).trim_end_matches(".rs");
        inside.trim_end_matches("/mod").split('/').count()
    }

    fn inline_modules(&self, offset: usize) -> usize {
        let opened = self.tokens("mod").into_iter().filter(|at| *at < offset);
        opened.filter_map(|at| body_after(&self.code, at)).filter(|body| body.contains(&offset)).count()
    }
}

/// Every file below `root` that ends in one of `endings`, sorted.
pub(crate) fn files_below(root: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap_or_default().to_owned();
            if path.is_symlink() || SKIPPED.contains(&name.as_str()) {
                continue;
            } else if path.is_dir() {
                pending.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The first names of a path or of a `{...}` group that starts at `from`.
fn heads(code: &str, from: usize) -> Vec<(usize, String)> {
    let rest = &code[from..];
    if !rest.starts_with('{') {
        return vec![(from, name_at(rest))];
    }
    let mut found = Vec::new();
    let (mut depth, mut fresh) = (0, true);
    for (at, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            c if depth == 1 && fresh && !c.is_whitespace() => {
                found.push((from + at, name_at(&rest[at..])));
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

fn name_at(code: &str) -> String {
    code.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn test_modules(code: &str) -> Vec<Range<usize>> {
    let marks = code.match_indices("#[cfg(test)]");
    let body = |at: usize| body_after(code, at + "#[cfg(test)]".len()).map(|body| at..body.end);
    marks.filter_map(|(at, _)| body(at)).collect()
}

/// The `{...}` that follows, unless a `;` outside of brackets comes first.
fn body_after(code: &str, from: usize) -> Option<Range<usize>> {
    let (mut brackets, mut braces, mut start) = (0, 0, 0);
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' if braces == 0 => brackets += 1,
            b')' | b']' if braces == 0 => brackets -= 1,
            b';' if braces == 0 && brackets == 0 => return None,
            b'{' if braces > 0 || brackets == 0 => {
                if braces == 0 {
                    start = at;
                }
                braces += 1;
            }
            b'}' if braces > 0 => {
                braces -= 1;
                if braces == 0 {
                    return Some(start..at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The text without comments, once with literals blanked and once with them. Bytes outside ASCII become `?`, so that offsets agree.
fn scrub(text: &str) -> (String, String) {
    let bytes: Vec<u8> = text.bytes().map(|byte| if byte.is_ascii() { byte } else { b'?' }).collect();
    let (mut code, mut uncommented) = (bytes.clone(), bytes.clone());
    let mut at = 0;
    while at < bytes.len() {
        let (length, literal) = token_length(&bytes[at..], at > 0 && is_name_byte(bytes[at - 1]));
        let range = at..at + length;
        match literal {
            Token::Other => {}
            Token::Comment => {
                blank(&mut code[range.clone()], b' ');
                blank(&mut uncommented[range], b' ');
            }
            Token::Literal => blank(&mut code[range], b's'),
        }
        at += length;
    }
    (String::from_utf8(code).unwrap(), String::from_utf8(uncommented).unwrap())
}

enum Token {
    Comment,
    Literal,
    Other,
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn blank(bytes: &mut [u8], with: u8) {
    bytes.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = with);
}

fn token_length(rest: &[u8], in_name: bool) -> (usize, Token) {
    let until = |end: &[u8], from: usize| {
        let found = rest[from..].windows(end.len()).position(|window| window == end);
        found.map_or(rest.len(), |at| from + at + end.len())
    };
    match rest {
        [b'/', b'/', ..] => (rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()), Token::Comment),
        [b'/', b'*', ..] => (until(b"*/", 2), Token::Comment),
        [b'"', ..] => (quoted(rest, b'"'), Token::Literal),
        [b'r', b'"' | b'#', ..] | [b'b', b'r', b'"' | b'#', ..] if !in_name => {
            let prefix = if rest[0] == b'b' { 2 } else { 1 };
            let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(prefix + hashes) != Some(&b'"') {
                return (prefix, Token::Other); // a raw name
            }
            let mut end = vec![b'"'];
            end.resize(hashes + 1, b'#');
            (until(&end, prefix + hashes + 1), Token::Literal)
        }
        [b'\'', b'\\', ..] => (quoted(rest, b'\''), Token::Literal),
        [b'\'', _, b'\'', ..] => (3, Token::Literal),
        // A character outside ASCII: up to four bytes, each `?` here. A lifetime has no second quote that near.
        [b'\'', b'?', ..] => (until(b"'", 1), Token::Literal),
        _ => (1, Token::Other),
    }
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}
