//! Names are bytes; terminals and JSON want text.

use serde_json::{Map, Value};

/// How names are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoting {
    /// As they are: for programs that read them.
    Raw,
    /// As a shell would take them, and so that a terminal obeys nothing in them (ls(1), `--quoting-style=shell-escape`).
    Shell,
}

impl Quoting {
    /// A name to print.
    #[must_use]
    pub fn quoted(self, name: &[u8]) -> Vec<u8> {
        match self {
            Self::Raw => name.to_vec(),
            Self::Shell => shell(name),
        }
    }
}

/// Whether a terminal would obey it instead of showing it: controls, C1 among them, and what turns the direction of text.
fn is_obeyed(char: char) -> bool {
    let turns = matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char.is_control() || turns
}

/// A path for messages, quoted as [`Quoting::Shell`] does it: a terminal must not obey it.
pub(crate) fn shown(path: &[u8]) -> String {
    // What is no text was escaped.
    String::from_utf8_lossy(&Quoting::Shell.quoted(path)).into_owned()
}

/// Somebody's words, for messages: on one line, and nothing that a terminal would obey.
pub(crate) fn told(text: &str) -> String {
    let escaped = |char: char| match is_obeyed(char) {
        true => char.escape_default().to_string(),
        false => char.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// JSON text in which nothing is left that a terminal would obey. It means the same: outside of its strings, JSON has only
/// ASCII, and inside them controls below 32 are escaped already (RFC 8259).
#[must_use]
pub fn safe_json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        if is_obeyed(char) && !matches!(char, '\n' | '\r' | '\t') {
            // All of them are in the basic plane.
            safe.push_str(&format!("\\u{:04x}", u32::from(char)));
        } else {
            safe.push(char);
        }
    }
    safe
}

/// One piece of a name.
#[derive(Clone, Copy)]
enum Piece {
    Plain(u8),
    Escaped(u8),
}

fn pieces(name: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for char in chunk.valid().chars() {
            let piece = if is_obeyed(char) { Piece::Escaped } else { Piece::Plain };
            pieces.extend(char.encode_utf8(&mut [0; 4]).bytes().map(piece));
        }
        pieces.extend(chunk.invalid().iter().copied().map(Piece::Escaped));
    }
    pieces
}

fn shell(name: &[u8]) -> Vec<u8> {
    let pieces = pieces(name);
    let only_plain = pieces.iter().all(|piece| matches!(piece, Piece::Plain(_)));
    // ls(1) leaves braces that bash expands; a leading minus is the caller's affair, as with ls.
    let is_special = |byte: &u8| b"!\"$&'()*;<=>?[\\^`{| ".contains(byte);
    let is_plain = !name.iter().any(is_special) && !matches!(name, [] | [b'~' | b'#', ..] | b"}");
    if only_plain && is_plain {
        return name.to_vec();
    }
    if only_plain && name.contains(&b'\'') && !name.iter().any(|byte| b"\"$`\\!".contains(byte)) {
        return [b"\"", name, b"\""].concat();
    }
    // Always inside quotes: '...' or, for what is escaped, $'...'.
    let mut out = vec![b'\''];
    let mut is_escaping = false;
    for piece in pieces {
        match piece {
            Piece::Plain(b'\'') => {
                out.extend_from_slice(b"'\\''");
                is_escaping = false;
            }
            Piece::Plain(byte) => {
                out.extend_from_slice(if is_escaping { b"''" } else { b"" });
                out.push(byte);
                is_escaping = false;
            }
            Piece::Escaped(byte) => {
                out.extend_from_slice(if is_escaping { b"" } else { b"'$'" });
                out.extend(escape(byte).bytes());
                is_escaping = true;
            }
        }
    }
    out.push(b'\'');
    out
}

fn escape(byte: u8) -> String {
    match byte {
        7 => "\\a".to_owned(),
        8 => "\\b".to_owned(),
        9 => "\\t".to_owned(),
        10 => "\\n".to_owned(),
        11 => "\\v".to_owned(),
        12 => "\\f".to_owned(),
        13 => "\\r".to_owned(),
        _ => format!("\\{byte:03o}"),
    }
}

/// Puts bytes under a key: as text, with what is no text replaced, and then also exactly, under `KEY_base64`.
pub(super) fn put(object: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    object.insert(key.to_owned(), String::from_utf8_lossy(bytes).into_owned().into());
    if std::str::from_utf8(bytes).is_err() {
        object.insert(format!("{key}_base64"), base64(bytes).into());
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4_u32 {
            let is_padding = digit as usize > group.len();
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if is_padding { '=' } else { char::from(DIGITS[value as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What bash takes quoted names for.
    fn unquoted(names: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut script = b"printf '%s\\0'".to_vec();
        for name in names {
            script.push(b' ');
            script.extend(Quoting::Shell.quoted(name));
        }
        let mut bash = Command::new("bash");
        let done = bash.arg("-c").arg(OsStr::from_bytes(&script)).env("LC_ALL", "C.UTF-8").output().unwrap();
        assert!(done.status.success(), "{done:?}\n{}", script.escape_ascii());
        let out = done.stdout.strip_suffix(b"\0").unwrap();
        out.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn every_pair_of_bytes_comes_back() {
        // Each beside those that quotes begin, end or are escaped with.
        let beside = b"a'\"\\$\n\x7f\xff ";
        for one in 1..=255_u8 {
            let pairs = beside.iter().flat_map(|other| [vec![one, *other], vec![*other, one]]);
            let names: Vec<_> = pairs.chain([vec![one], vec![one; 3]]).collect();
            assert_eq!(unquoted(&names), names);
        }
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        let sign = prop_oneof![
            3 => proptest::sample::select(&b"'\"$`\\!ab {},~#=-\n\x7f\x1b"[..]).prop_map(|byte| vec![byte]),
            1 => (1..=255_u8).prop_map(|byte| vec![byte]),
            1 => any::<char>().prop_filter("NUL", |char| *char != '\0')
                .prop_map(|char| char.to_string().into_bytes()),
            1 => (0x80..0xa0_u32).prop_map(|c1| char::from_u32(c1).unwrap().to_string().into_bytes()),
        ];
        proptest::collection::vec(sign, 0..8).prop_map(|signs| signs.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_shell_gives_the_name_back(names in proptest::collection::vec(name(), 1..200)) {
            prop_assert_eq!(unquoted(&names), names.clone());
            for name in names {
                let quoted = String::from_utf8(Quoting::Shell.quoted(&name)).unwrap();
                prop_assert!(!quoted.chars().any(is_obeyed), "{:?}", quoted);
            }
        }

        #[test]
        fn json_means_the_same_and_is_safe(names in proptest::collection::vec(name(), 1..200)) {
            for name in names {
                let mut object = Map::new();
                put(&mut object, "name", &name);
                let object = Value::from(object);
                for text in [object.to_string(), format!("{object:#}")] {
                    let safe = safe_json(&text);
                    prop_assert!(!safe.chars().any(|char| is_obeyed(char) && char != '\n'), "{:?}", safe);
                    prop_assert_eq!(&serde_json::from_str::<Value>(&safe).unwrap(), &object);
                }
            }
        }
    }

    /// All of Bidi_Control (UAX #9), lines and paragraphs.
    #[test]
    fn what_turns_text_is_never_shown() {
        for char in "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{2028}\u{2029}".chars() {
            assert_eq!(told(&char.to_string()), char.escape_default().to_string());
            assert_eq!(safe_json(&format!("\"{char}\"")), format!("\"\\u{:04x}\"", u32::from(char)));
            assert!(shown(char.to_string().as_bytes()).is_ascii());
        }
    }

    #[test]
    fn quotes_as_ls_does() {
        let names: [&[u8]; 26] = [
            b"it's\n",
            b"'\n",
            b"\n'",
            b"'",
            b"a'\x7f'\x01\x02'b\xc2\x9b",
            b"'\\''\n",
            b"plain",
            b"a b",
            b"it's",
            b"it's \"it\"",
            b"a\nb",
            b"\n",
            b"\x1b[31mred",
            b"caf\xc3\xa9",
            b"\xff\xfe",
            b"x\xffy",
            b"$HOME",
            b"~",
            b"#a",
            b"a#",
            b"a~",
            b"-l",
            b"back\\slash",
            b"tab\there",
            b"star*",
            b"a\n\nb's",
        ];
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(OsStr::from_bytes(name)), "").unwrap();
            let mut ls = Command::new("ls");
            ls.args(["--quoting-style=shell-escape", "--"]).arg(OsStr::from_bytes(name));
            let out = ls.env("LC_ALL", "C.UTF-8").current_dir(dir.path()).output().unwrap().stdout;
            let expected = out.strip_suffix(b"\n").unwrap();
            let found = Quoting::Shell.quoted(name);
            // Before some names ls puts a pair of quotes with nothing between them.
            let expected = expected.strip_prefix(b"''").filter(|rest| *rest == found).unwrap_or(expected);
            assert_eq!(
                String::from_utf8_lossy(&found),
                String::from_utf8_lossy(expected),
                "{}",
                name.escape_ascii()
            );
            assert_eq!(Quoting::Raw.quoted(name), name);
        }
    }

    #[test]
    fn bytes_survive_json() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"\xff\xfe\xfd\xfc", "//79/A=="),
        ] {
            assert_eq!(base64(bytes), text);
        }
        let mut object = Map::new();
        put(&mut object, "name", b"a\xffb");
        put(&mut object, "path", "caf\u{e9}".as_bytes());
        assert_eq!(
            Value::from(object),
            serde_json::json!({"name": "a\u{fffd}b", "name_base64": "Yf9i", "path": "caf\u{e9}"})
        );
    }
}
