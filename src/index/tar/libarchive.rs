//! Extended attributes as libarchive writes them (bsdtar): `LIBARCHIVE.xattr.NAME=VALUE`, the name with `%XX` for bytes
//! that are not plain ASCII, the value in base64 without padding. It writes `SCHILY.xattr.` too, which wins.

/// Name and value of a record, without its prefix; `None` when it is not written like this.
pub(super) fn xattr(name: &[u8], value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    Some((percent_decoded(name)?, base64_decoded(value)?))
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let [high, low, after @ ..] = after else { return None };
        rest = after;
        bytes.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// RFC 4648, section 4; padding may be there.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let len = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    if len % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(len / 4 * 3 + 2);
    for group in text[..len].chunks(4) {
        let mut bits = 0_u32;
        for digit in group {
            bits = bits << 6 | u32::from(base64_digit(*digit)?);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

fn base64_digit(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        let values = [
            (&b""[..], &b""[..]),
            (b"YQ", b"a"),
            (b"YWI=", b"ab"),
            (b"YWJj", b"abc"),
            (b"AP/+AA", b"\0\xff\xfe\0"),
        ];
        for (text, value) in values {
            assert_eq!(xattr(b"user.%61%3Db%FF", text), Some((b"user.a=b\xff".to_vec(), value.to_vec())));
        }
        for (name, value) in [
            (&b"%"[..], &b""[..]),
            (b"%4", b""),
            (b"%zz", b""),
            (b"a", b"Y"),
            (b"a", b"Y W"),
            (b"a", b"YWJjZ"),
        ] {
            assert_eq!(xattr(name, value), None, "{} {}", name.escape_ascii(), value.escape_ascii());
        }
    }
}
