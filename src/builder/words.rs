//! Words of an instruction: quotes, escapes and variables, as docker's parser has them.

use std::iter::Peekable;
use std::str::Chars;

/// Gives the value of a variable, if it has one.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Splits at blanks outside of quotes; quotes and escapes stay.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), c) if c == escape => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Takes quotes and escapes away and puts variables in.
pub(super) fn expand(word: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    let mut text = String::new();
    let mut chars = word.chars().peekable();
    let mut in_quotes = false;
    while let Some(c) = chars.next() {
        match c {
            '\'' if !in_quotes => loop {
                match chars.next() {
                    Some('\'') => break,
                    Some(c) => text.push(c),
                    None => return Err(format!("{word}: no closing '")),
                }
            },
            '"' => in_quotes = !in_quotes,
            '$' => text.push_str(&variable(word, &mut chars, escape, lookup)?),
            c if c == escape => match chars.next() {
                Some(next) if in_quotes && !['"', '$', escape].contains(&next) => text.extend([c, next]),
                Some(next) => text.push(next),
                None => text.push(c),
            },
            c => text.push(c),
        }
    }
    if in_quotes { Err(format!("{word}: no closing \"")) } else { Ok(text) }
}

fn variable(
    word: &str,
    chars: &mut Peekable<Chars<'_>>,
    escape: char,
    lookup: Lookup<'_>,
) -> Result<String, String> {
    let braced = chars.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    if !braced {
        return Ok(if name.is_empty() { "$".to_owned() } else { lookup(&name).unwrap_or_default() });
    }
    let mut rest = String::new();
    let mut depth = 1;
    loop {
        match chars.next() {
            Some('}') if depth == 1 => break,
            Some(c) => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                rest.push(c);
            }
            None => return Err(format!("{word}: no closing }}")),
        }
    }
    if name.is_empty() {
        return Err(format!("{word}: no variable name after ${{"));
    }
    let value = lookup(&name);
    let non_empty = value.clone().filter(|value| !value.is_empty());
    let default = |at: usize| expand(&rest[at..], escape, lookup);
    match rest.as_bytes() {
        [] => Ok(value.unwrap_or_default()),
        [b':', b'-', ..] => non_empty.map_or_else(|| default(2), Ok),
        [b':', b'+', ..] => non_empty.map_or_else(|| Ok(String::new()), |_| default(2)),
        [b'-', ..] => value.map_or_else(|| default(1), Ok),
        [b'+', ..] => value.map_or_else(|| Ok(String::new()), |_| default(1)),
        _ => Err(format!("${{{name}{rest}}}: only ${{X}}, ${{X:-default}} and ${{X:+other}} are supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_in(word: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "A" => Some("one two".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        expand(word, '\\', &lookup)
    }

    #[test]
    fn variables() {
        for (word, expected) in [
            ("$A", "one two"),
            ("x${A}y", "xone twoy"),
            ("$NO-", "-"),
            ("${NO:-d$A}", "done two"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${A:+yes}", "yes"),
            ("${NO:+yes}", ""),
            ("${NO:-${A}}", "one two"),
            (r"\$A", "$A"),
            ("'$A'", "$A"),
            ("\"$A\"", "one two"),
            (r#""a\"b\c""#, r#"a"b\c"#),
            (r"a\ b", "a b"),
            ("$", "$"),
        ] {
            assert_eq!(put_in(word).as_deref(), Ok(expected), "{word}");
        }
        for word in ["${A", "'x", "\"x", "${}", "${A#x}", "${A:?x}"] {
            assert!(put_in(word).is_err(), "{word}");
        }
    }

    #[test]
    fn splitting_keeps_quotes() {
        assert_eq!(split(r#" a="b c"  d\ e 'f g'h "#, '\\'), [r#"a="b c""#, r"d\ e", "'f g'h"]);
        assert!(split("  ", '\\').is_empty());
    }
}
