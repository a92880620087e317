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

/// One piece of a name.
enum Piece<'a> {
    Text(&'a str),
    Escaped(u8),
}

fn pieces(name: &[u8]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    for chunk in name.utf8_chunks() {
        for text in chunk.valid().split_inclusive(char::is_control) {
            let (plain, control) = match text.char_indices().next_back() {
                Some((at, last)) if last.is_control() => text.split_at(at),
                _ => (text, ""),
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(plain));
            }
            pieces.extend(control.bytes().map(Piece::Escaped));
        }
        pieces.extend(chunk.invalid().iter().map(|byte| Piece::Escaped(*byte)));
    }
    pieces
}

fn shell(name: &[u8]) -> Vec<u8> {
    let pieces = pieces(name);
    let special = |byte: u8| b"!\"$&'()*;<=>?[\\^`| ".contains(&byte);
    let needs_quotes = name.is_empty()
        || name.iter().copied().any(special)
        || matches!(name, [b'~' | b'#' | b'-', ..])
        || matches!(name, b"{" | b"}")
        || pieces.iter().any(|piece| matches!(piece, Piece::Escaped(_)));
    // A leading minus is the caller's affair, as with ls.
    if !needs_quotes
        || (matches!(name, [b'-', ..]) && !name.iter().copied().any(special) && pieces.len() == 1)
    {
        return name.to_vec();
    }
    let has_quote = name.contains(&b'\'');
    let only_text = pieces.iter().all(|piece| matches!(piece, Piece::Text(_)));
    if has_quote && only_text && !name.iter().any(|byte| b"\"$`\\!".contains(byte)) {
        return [b"\"", name, b"\""].concat();
    }
    let mut out = vec![b'\''];
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.extend(text.replace('\'', "'\\''").bytes()),
            Piece::Escaped(byte) => {
                // Neighbours share one $'...'.
                if out.ends_with(b"''") && out.len() > 2 {
                    out.truncate(out.len() - 2);
                } else {
                    out.extend_from_slice(b"'$'");
                }
                out.extend(escape(byte).bytes());
                out.extend_from_slice(b"''");
            }
        }
    }
    // Nothing stands between the quotes that were opened last.
    if out.ends_with(b"''") && out.len() > 2 {
        out.pop();
    } else {
        out.push(b'\'');
    }
    if out.starts_with(b"''") && out.len() > 2 {
        return [b"''", &out[2..]].concat();
    }
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

    use super::*;

    #[test]
    fn quotes_as_ls_does() {
        let names: [&[u8]; 20] = [
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
