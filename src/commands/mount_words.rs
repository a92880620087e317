//! The lists behind `-o`, as mount(8), overlayfs and container tools write them: words between commas, values that may
//! be quoted, backslashes before what would otherwise separate.

use std::iter;

/// One word: a key and, behind `=`, perhaps a value, as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// All of it.
    pub text: &'a [u8],
    /// What is before the first `=`.
    pub key: &'a [u8],
    /// What is behind it, without quotes around it; backslashes are still there.
    pub value: Option<&'a [u8]>,
}

/// Splits a list at its commas. Empty words are passed over: they occur in practice.
///
/// A comma behind a backslash, or in a value that is wholly in double quotes, does not separate.
pub fn words(list: &[u8]) -> impl Iterator<Item = Word<'_>> {
    let mut rest = Some(list);
    let texts = iter::from_fn(move || {
        let list = rest?;
        let end = end_of_word(list);
        rest = list.get(end + 1..);
        Some(&list[..end])
    });
    texts.filter(|text| !text.is_empty()).map(Word::new)
}

/// Takes the backslashes away that protect `,`, `:`, `"` and `\`. Any other stands for itself.
#[must_use]
pub fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        at += usize::from(is_escape(&text[at..]));
        plain.push(text[at]);
        at += 1;
    }
    plain
}

/// Splits a value at its colons, except those behind a backslash. The parts are still escaped.
#[must_use]
pub fn split_at_colons(value: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < value.len() {
        if is_escape(&value[at..]) {
            at += 1;
        } else if value[at] == b':' {
            parts.push(&value[start..at]);
            start = at + 1;
        }
        at += 1;
    }
    parts.push(&value[start..]);
    parts
}

impl<'a> Word<'a> {
    fn new(text: &'a [u8]) -> Self {
        match text.iter().position(|byte| *byte == b'=') {
            Some(at) => Self { text, key: &text[..at], value: Some(unquoted(&text[at + 1..])) },
            None => Self { text, key: text, value: None },
        }
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

fn is_escape(text: &[u8]) -> bool {
    matches!(text, [b'\\', b',' | b':' | b'"' | b'\\', ..])
}

/// Where the first word of a list ends. A quote opens only at the start of a value and only if another closes it at the
/// end of the word: anywhere else it belongs to a name.
fn end_of_word(list: &[u8]) -> usize {
    let mut at = 0;
    let mut in_key = true;
    while at < list.len() {
        match list[at] {
            _ if is_escape(&list[at..]) => at += 1,
            b',' => return at,
            b'=' if in_key => {
                in_key = false;
                if let Some(length) = quoted(&list[at + 1..]) {
                    at += length;
                }
            }
            _ => {}
        }
        at += 1;
    }
    list.len()
}

/// The length of a value in quotes that a comma or nothing follows.
fn quoted(value: &[u8]) -> Option<usize> {
    let mut inside = value.strip_prefix(b"\"")?.iter().enumerate();
    let closing = inside.find(|(at, byte)| **byte == b'"' && matches!(value.get(at + 2), None | Some(b',')));
    closing.map(|(at, _)| at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(list: &str) -> Vec<(&str, Option<&str>)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        words(list.as_bytes()).map(|word| (text(word.key), word.value.map(text))).collect()
    }

    #[test]
    fn words_between_commas() {
        assert_eq!(
            split("ro,a=b,,c=,x=y=z,"),
            [("ro", None), ("a", Some("b")), ("c", Some("")), ("x", Some("y=z"))]
        );
        assert_eq!(split(""), []);
        assert_eq!(split(",,"), []);
    }

    #[test]
    fn commas_that_do_not_separate() {
        assert_eq!(
            split(r#"context="u:r:t:s0:c1,c2",ro"#),
            [("context", Some("u:r:t:s0:c1,c2")), ("ro", None)]
        );
        assert_eq!(split(r"upperdir=/a\,b,ro"), [("upperdir", Some(r"/a\,b")), ("ro", None)]);
        assert_eq!(split(r"upperdir=/a\\,ro"), [("upperdir", Some(r"/a\\")), ("ro", None)]);
        assert_eq!(split(r#"a="x","#), [("a", Some("x"))]);
        assert_eq!(split(r#"a="x"y",b"#), [("a", Some(r#"x"y"#)), ("b", None)]);
    }

    #[test]
    fn quotes_in_names_are_names() {
        assert_eq!(split(r#"lowerdir=/a"b:/c,ro"#), [("lowerdir", Some(r#"/a"b:/c"#)), ("ro", None)]);
        assert_eq!(split(r#"lowerdir="/a,ro"#), [("lowerdir", Some(r#""/a"#)), ("ro", None)]);
        assert_eq!(split(r#"x"=1,ro"#), [(r#"x""#, Some("1")), ("ro", None)]);
    }

    #[test]
    fn backslashes() {
        assert_eq!(unescaped(br#"a\:b\,c\\d\"e\f\"#), br#"a:b,c\d"e\f\"#);
        assert_eq!(unescaped(br"\\:"), br"\:");
        let parts = split_at_colons(br"/a\:b:/c\\:/d:");
        assert_eq!(parts, [&br"/a\:b"[..], br"/c\\", b"/d", b""]);
        assert_eq!(split_at_colons(b""), [b""]);
    }
}
