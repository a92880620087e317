//! A template's text as pieces: what is printed as it is, and the words inside `{{ }}`.

use super::TemplateError;

/// Nobody types more.
const TEMPLATE_BYTES_MAX: usize = 64 << 10;
const OPEN: &str = "{{";
const CLOSE: &str = "}}";
const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

/// One piece.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    /// Printed as it is.
    Text(String),
    /// `{{ words }}`
    Action(Vec<Word>),
}

/// A word of an action and where it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word {
    pub(super) kind: Kind,
    /// Bytes of the template before it.
    pub(super) start: usize,
    /// Bytes of the template up to its end.
    pub(super) end: usize,
    /// Whether a space comes before it: `.A.B` is not `.A .B`.
    pub(super) is_apart: bool,
}

/// What a word is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// `.name`
    Field(String),
    /// `.`
    Dot,
    /// `$name`; the name is empty for `$`.
    Variable(String),
    /// `name`: a function or a keyword.
    Name(String),
    /// A literal.
    Text(String),
    /// A literal.
    Number(serde_json::Number),
    /// `( ) | , := =`
    Mark(&'static str),
}

/// Where a template is wrong.
pub(super) fn refused(text: &str, at: usize, message: impl Into<String>) -> TemplateError {
    let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    TemplateError::Parse { line, message: message.into() }
}

/// Takes a template apart.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    if text.len() > TEMPLATE_BYTES_MAX {
        return Err(refused(text, 0, format!("longer than {TEMPLATE_BYTES_MAX} bytes")));
    }
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trims_left = false;
    while let Some(found) = text[at..].find(OPEN) {
        let open = at + found;
        let mut inner = open + OPEN.len();
        let mut before = &text[at..open];
        if trims_left {
            before = before.trim_start_matches(SPACES);
        }
        if text[inner..].strip_prefix('-').is_some_and(|rest| rest.starts_with(SPACES)) {
            before = before.trim_end_matches(SPACES);
            inner += 1;
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        (at, trims_left) = match comment_end(text, inner)? {
            Some(end) => end,
            None => {
                let mut words = Words { text, at: inner, found: Vec::new() };
                let end = words.read()?;
                pieces.push(Piece::Action(words.found));
                end
            }
        };
    }
    let rest = if trims_left { text[at..].trim_start_matches(SPACES) } else { &text[at..] };
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

/// Behind a comment, if one begins here, and whether it trims what follows.
fn comment_end(text: &str, at: usize) -> Result<Option<(usize, bool)>, TemplateError> {
    let inner = text[at..].trim_start_matches(SPACES);
    if !inner.starts_with("/*") {
        return Ok(None);
    }
    let closed = inner[2..].split_once("*/").map(|(_, rest)| rest);
    let rest = closed.ok_or_else(|| refused(text, at, "unclosed comment"))?;
    let (rest, trims) = match rest.trim_start_matches(SPACES).strip_prefix('-') {
        Some(trimmed) if rest.starts_with(SPACES) => (trimmed, true),
        _ => (rest, false),
    };
    match rest.strip_prefix(CLOSE) {
        Some(rest) => Ok(Some((text.len() - rest.len(), trims))),
        None => Err(refused(text, at, "comment ends before closing delimiter")),
    }
}

struct Words<'a> {
    text: &'a str,
    at: usize,
    found: Vec<Word>,
}

impl Words<'_> {
    /// All words up to the end of the action; gives what is behind it, and whether that is trimmed.
    fn read(&mut self) -> Result<(usize, bool), TemplateError> {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start_matches(SPACES);
            let is_apart = trimmed.len() < rest.len();
            self.at = self.text.len() - trimmed.len();
            if trimmed.starts_with(CLOSE) {
                return Ok((self.at + CLOSE.len(), false));
            }
            if is_apart && trimmed.starts_with("-}}") {
                return Ok((self.at + 1 + CLOSE.len(), true));
            }
            let Some(first) = trimmed.chars().next() else {
                return Err(refused(self.text, self.at, "unclosed action"));
            };
            let start = self.at;
            let kind = self.word(first)?;
            self.found.push(Word { kind, start, end: self.at, is_apart });
        }
    }

    fn word(&mut self, first: char) -> Result<Kind, TemplateError> {
        let rest = &self.text[self.at..];
        match first {
            '"' => self.quoted(),
            '`' => {
                let end = rest[1..].find('`').ok_or_else(|| self.wrong("unterminated raw quoted string"))?;
                let raw = rest[1..=end].to_owned();
                self.at += end + 2;
                Ok(Kind::Text(raw))
            }
            '\'' => Err(self.wrong("character constants are not supported: write a string")),
            '0'..='9' | '+' | '-' => self.number(),
            '.' if rest[1..].starts_with(|char: char| char.is_ascii_digit()) => self.number(),
            '.' => {
                self.at += 1;
                let name = self.name();
                Ok(if name.is_empty() { Kind::Dot } else { Kind::Field(name) })
            }
            '$' => {
                self.at += 1;
                Ok(Kind::Variable(self.name()))
            }
            _ if is_letter(first) => Ok(Kind::Name(self.name())),
            _ => {
                let mark = [":=", "=", "(", ")", "|", ","].into_iter().find(|mark| rest.starts_with(mark));
                let mark = mark.ok_or_else(|| self.wrong(&format!("unexpected {first:?} in action")))?;
                self.at += mark.len();
                Ok(Kind::Mark(mark))
            }
        }
    }

    fn name(&mut self) -> String {
        let rest = &self.text[self.at..];
        let end = rest.find(|char: char| !is_letter(char) && !char.is_ascii_digit()).unwrap_or(rest.len());
        self.at += end;
        rest[..end].to_owned()
    }

    fn number(&mut self) -> Result<Kind, TemplateError> {
        let rest = &self.text[self.at..];
        let of_number = |char: char| char.is_ascii_alphanumeric() || matches!(char, '+' | '-' | '.' | '_');
        let word = &rest[..rest.find(|char| !of_number(char)).unwrap_or(rest.len())];
        let plain = word.strip_prefix('+').unwrap_or(word);
        let wrong = || self.wrong(&format!("bad number syntax: {word:?}"));
        let number = match plain.parse::<i64>() {
            Ok(number) => number.into(),
            Err(_) if plain.contains(['.', 'e', 'E']) => {
                let number = plain.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
                number.ok_or_else(wrong)?
            }
            Err(_) => return Err(wrong()),
        };
        self.at += word.len();
        Ok(Kind::Number(number))
    }

    /// A string as Go has it.
    fn quoted(&mut self) -> Result<Kind, TemplateError> {
        let mut value = String::new();
        let mut chars = self.text[self.at + 1..].char_indices();
        while let Some((offset, char)) = chars.next() {
            match char {
                '"' => {
                    self.at += offset + 2;
                    return Ok(Kind::Text(value));
                }
                '\n' => break,
                '\\' => value.push(match chars.next().map(|(_, char)| char) {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    Some('\\') => '\\',
                    Some('"') => '"',
                    Some('a') => '\u{7}',
                    Some('b') => '\u{8}',
                    Some('f') => '\u{c}',
                    Some('v') => '\u{b}',
                    Some('x') => self.code(&mut chars, 2)?,
                    Some('u') => self.code(&mut chars, 4)?,
                    Some('U') => self.code(&mut chars, 8)?,
                    Some(other) => return Err(self.wrong(&format!("unknown escape \\{other} in a string"))),
                    None => break,
                }),
                other => value.push(other),
            }
        }
        Err(self.wrong("unterminated quoted string"))
    }

    fn code(&self, chars: &mut std::str::CharIndices<'_>, digits: usize) -> Result<char, TemplateError> {
        let text: String = chars.take(digits).map(|(_, char)| char).collect();
        // Go's \x names a byte; above 127 that is no text by itself.
        let known = u32::from_str_radix(&text, 16).ok().filter(|code| digits > 2 || *code < 0x80);
        let is_whole = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let char = known.filter(|_| is_whole).and_then(char::from_u32);
        char.ok_or_else(|| self.wrong(&format!("bad escape {text:?} in a string")))
    }

    fn wrong(&self, message: &str) -> TemplateError {
        refused(self.text, self.at, message)
    }
}

fn is_letter(char: char) -> bool {
    char == '_' || char.is_alphabetic()
}
