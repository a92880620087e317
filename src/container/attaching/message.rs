//! What those who are attached and the process that runs a container tell each other: a byte that says what it is, and the rest.

use crate::launcher::{Stream, Window};
use crate::sys::message_socket::MESSAGE_BYTES_MAX;

/// Bytes of input or output in one message.
pub(super) const BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1;

/// To one who is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told<'a> {
    /// The first: whether the program has a terminal, and reads.
    Hello { terminal: bool, input: bool },
    /// The program wrote this.
    Wrote(Stream, &'a [u8]),
    /// The last: its exit code.
    Exited(u8),
    /// The last, too: why there is nothing more.
    Refused(&'a str),
}

/// From one who is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// For the program to read.
    Input(&'a [u8]),
    /// The end of that.
    InputEnds,
    /// The size of the user's terminal.
    Resized(Window),
}

impl<'a> Told<'a> {
    pub(super) fn encode(self) -> Vec<u8> {
        let with = |kind: u8, rest: &[u8]| [&[kind], rest].concat();
        match self {
            Self::Hello { terminal, input } => with(b'H', &[u8::from(terminal), u8::from(input)]),
            Self::Wrote(Stream::Output, bytes) => with(b'O', bytes),
            Self::Wrote(Stream::Errors, bytes) => with(b'E', bytes),
            Self::Exited(code) => with(b'X', &[code]),
            Self::Refused(why) => with(b'R', why.as_bytes()),
        }
    }

    pub(super) fn decode(message: &'a [u8]) -> Option<Self> {
        match message {
            [b'H', terminal, input] => Some(Self::Hello { terminal: *terminal != 0, input: *input != 0 }),
            [b'O', bytes @ ..] => Some(Self::Wrote(Stream::Output, bytes)),
            [b'E', bytes @ ..] => Some(Self::Wrote(Stream::Errors, bytes)),
            [b'X', code] => Some(Self::Exited(*code)),
            [b'R', why @ ..] => std::str::from_utf8(why).ok().map(Self::Refused),
            _ => None,
        }
    }
}

impl<'a> Asked<'a> {
    pub(super) fn encode(self) -> Vec<u8> {
        match self {
            Self::Input(bytes) => [b"I", bytes].concat(),
            Self::InputEnds => b"Z".to_vec(),
            Self::Resized(Window { rows, columns }) => {
                [&b"W"[..], &rows.to_le_bytes(), &columns.to_le_bytes()].concat()
            }
        }
    }

    pub(super) fn decode(message: &'a [u8]) -> Option<Self> {
        match message {
            [b'I', bytes @ ..] => Some(Self::Input(bytes)),
            [b'Z'] => Some(Self::InputEnds),
            [b'W', a, b, c, d] => Some(Self::Resized(Window {
                rows: u16::from_le_bytes([*a, *b]),
                columns: u16::from_le_bytes([*c, *d]),
            })),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for told in [
            Told::Hello { terminal: true, input: false },
            Told::Wrote(Stream::Output, b"x\0y"),
            Told::Wrote(Stream::Errors, b""),
            Told::Exited(137),
            Told::Refused("full"),
        ] {
            assert_eq!(Told::decode(&told.encode()), Some(told));
        }
        for asked in
            [Asked::Input(b"x"), Asked::InputEnds, Asked::Resized(Window { rows: 24, columns: 1000 })]
        {
            assert_eq!(Asked::decode(&asked.encode()), Some(asked));
        }
        for wrong in [&b""[..], b"W123", b"Zz", b"?"] {
            assert_eq!(Asked::decode(wrong), None);
            assert_eq!(Told::decode(wrong), None);
        }
    }
}
