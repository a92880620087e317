//! What a container printed, as podman's `k8s-file` has it: `TIME stdout|stderr F|P TEXT`, a line each. `P` is a piece of a
//! line that goes on in the next record of the same stream.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Moment;
use crate::launcher::Stream;

mod files;
mod read;

pub use read::{LogError, Wanted, show};

/// How large a log may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Bytes of one file, about; `None` without end. Docker's `max-size`.
    pub bytes: Option<u64>,
    /// Files, the one that is written included. Docker's `max-file`.
    pub files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { bytes: None, files: 1 }
    }
}

/// One piece of what was printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When; of what a server logged itself it is not known.
    pub time: Option<Moment>,
    /// Where.
    pub stream: Stream,
    /// Whether a line ends with it.
    pub ends_line: bool,
    /// What, without the end of the line.
    pub text: Vec<u8>,
}

impl Record {
    /// A line of a log, without its end. What is no record is a message of the server, which has the same log.
    fn parse(line: &[u8]) -> Self {
        Self::parse_record(line).unwrap_or_else(|| Self {
            time: None,
            stream: Stream::Errors,
            ends_line: true,
            text: line.to_vec(),
        })
    }

    fn parse_record(line: &[u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Output,
            b"stderr" => Stream::Errors,
            _ => return None,
        };
        let ends_line = match parts.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { time: Some(time), stream, ends_line, text: parts.next()?.to_vec() })
    }
}

/// Writes the log of a running container.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    limits: LogLimits,
    file: File,
    bytes: u64,
    /// The last record may be there in part.
    is_torn: bool,
}

impl LogWriter {
    /// Goes on with the log at `path`.
    pub(super) fn open(path: &Path, limits: LogLimits) -> io::Result<Self> {
        let file = open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), limits, file, bytes, is_torn: false })
    }

    /// Adds what was printed at one moment.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8], now: Moment) -> io::Result<()> {
        let mut records = Vec::with_capacity(bytes.len() + 64);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let record = record(stream, piece, now);
            let before = self.bytes + records.len() as u64;
            let is_full = |max: u64| before > 0 && before + record.len() as u64 > max;
            if self.limits.bytes.is_some_and(is_full) {
                self.append(&records)?;
                records.clear();
                self.rotate()?;
            }
            records.extend(record);
        }
        self.append(&records)
    }

    /// At once, so that a reader finds whole records.
    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        if std::mem::replace(&mut self.is_torn, true) {
            self.file.write_all(b"\n")?;
        }
        self.file.write_all(records)?;
        self.is_torn = false;
        self.bytes += records.len() as u64;
        Ok(())
    }

    /// Begins a new file. The one that was written keeps its inode, so that who follows it can read it to its end.
    fn rotate(&mut self) -> io::Result<()> {
        let older = (1..self.limits.files).rev();
        for number in older {
            let from = rotated(&self.path, number - 1);
            match std::fs::rename(&from, rotated(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.limits.files <= 1 {
            match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = open(&self.path)?;
        (self.bytes, self.is_torn) = (0, false);
        Ok(())
    }
}

/// The log that was written `number` files before.
fn rotated(path: &Path, number: u32) -> PathBuf {
    match number {
        0 => path.to_owned(),
        number => path.with_added_extension(number.to_string()),
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

/// `piece` is a line, or the beginning of one.
fn record(stream: Stream, piece: &[u8], now: Moment) -> Vec<u8> {
    let stream = match stream {
        Stream::Output => "stdout",
        Stream::Errors => "stderr",
    };
    let (end, text) = match piece.strip_suffix(b"\n") {
        Some(text) => ('F', text),
        None => ('P', piece),
    };
    let mut record = format!("{now} {stream} {end} ").into_bytes();
    record.extend_from_slice(text);
    record.push(b'\n');
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_podmans() {
        let now = Moment::from_seconds(1000);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = LogWriter::open(&path, LogLimits::default()).unwrap();
        writer.write(Stream::Output, b"one\n\ntw", now).unwrap();
        let text = std::fs::read(&path).unwrap();
        let time = "1970-01-01T00:16:40.000000000Z";
        let expected = format!("{time} stdout F one\n{time} stdout F \n{time} stdout P tw\n");
        assert_eq!(String::from_utf8(text.clone()).unwrap(), expected);
        let parsed: Vec<Record> =
            text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(Record::parse).collect();
        let made = |ends_line, text: &[u8]| Record {
            time: Some(now),
            stream: Stream::Output,
            ends_line,
            text: text.to_vec(),
        };
        assert_eq!(parsed, [made(true, b"one"), made(true, b""), made(false, b"tw")]);
    }

    #[test]
    fn what_is_no_record_is_shown_as_it_is() {
        for line in [&b"WARN something"[..], b"", b"1970-01-01T00:16:40Z stdnone F x", b"x stdout F y"] {
            let record = Record::parse(line);
            assert_eq!((record.time, record.text.as_slice(), record.ends_line), (None, line, true));
        }
    }

    #[test]
    fn a_full_log_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let write = |limits, texts: &[&str]| {
            let mut writer = LogWriter::open(&path, limits).unwrap();
            for text in texts {
                writer.write(Stream::Errors, text.as_bytes(), Moment::from_seconds(1)).unwrap();
            }
        };
        let at = |number| {
            let text = std::fs::read_to_string(rotated(&path, number)).unwrap_or_default();
            text.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let limits = LogLimits { bytes: Some(100), files: 3 };
        write(limits, &["a\n", "b\n", "c\n", "d\n"]);
        // The next one goes on where it ended; also within what came at once.
        write(limits, &["e\nf\ng\n"]);
        assert_eq!([at(0), at(1), at(2), at(3)], [vec!["g"], vec!["e", "f"], vec!["c", "d"], vec![]]);
        write(LogLimits { bytes: Some(100), files: 1 }, &["h\n", "i\n"]);
        assert_eq!([at(0), at(1)], [vec!["i"], vec!["e", "f"]]);
    }
}
