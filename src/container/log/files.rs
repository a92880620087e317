//! The files of a log as one, from the oldest record to the one that is written.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Record, rotated};

/// Bytes of one record. What is longer is shown in pieces: no writer of ours makes it.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// A place in them.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    current: BufReader<File>,
    /// Those that were written after that one, the youngest first.
    younger: Vec<File>,
    /// The beginning of a record whose end is not written yet.
    begun: Vec<u8>,
}

impl Files {
    /// At the oldest record; `None` when there is no log.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut younger = opened(path)?;
        Ok(younger.pop().map(|oldest| Self {
            path: path.to_owned(),
            current: BufReader::new(oldest),
            younger,
            begun: Vec::new(),
        }))
    }

    /// The next record; `None` when no more is written yet.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            if let Some(record) = self.next_here()? {
                return Ok(Some(record));
            }
            if self.younger.is_empty() && !self.find_younger()? {
                return Ok(None);
            }
            // What came before the next file was begun.
            if let Some(record) = self.next_here()? {
                return Ok(Some(record));
            }
            if let Some(next) = self.younger.pop() {
                self.current = BufReader::new(next);
                self.begun.clear();
            }
        }
    }

    fn next_here(&mut self) -> io::Result<Option<Record>> {
        let room = RECORD_BYTES_MAX.saturating_sub(self.begun.len() as u64);
        (&mut self.current).take(room).read_until(b'\n', &mut self.begun)?;
        let ends = self.begun.pop_if(|last| *last == b'\n').is_some();
        if !ends && (self.begun.len() as u64) < RECORD_BYTES_MAX {
            return Ok(None);
        }
        Ok(Some(Record::parse(&std::mem::take(&mut self.begun))))
    }

    /// Whether another file is written by now.
    fn find_younger(&mut self) -> io::Result<bool> {
        let here = self.current.get_ref().metadata()?.ino();
        let mut files = opened(&self.path)?;
        for (at, file) in files.iter().enumerate() {
            if file.metadata()?.ino() == here {
                files.truncate(at);
                break;
            }
        }
        self.younger = files;
        Ok(!self.younger.is_empty())
    }
}

/// All of them, the youngest first: one that is renamed meanwhile becomes an older one, so none is missed.
fn opened(path: &Path) -> io::Result<Vec<File>> {
    let mut files: Vec<File> = Vec::new();
    let mut last = None;
    for number in 0.. {
        match File::open(rotated(path, number)) {
            Ok(file) => {
                let ino = file.metadata()?.ino();
                if last.replace(ino) != Some(ino) {
                    files.push(file);
                }
            }
            // The youngest is not there for a moment when another is begun.
            Err(error) if error.kind() == io::ErrorKind::NotFound && number == 0 => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Moment;
    use crate::container::log::{LogLimits, LogWriter};
    use crate::launcher::Stream;

    #[test]
    fn nothing_is_missed_while_files_begin() {
        for (files, step) in [(4, 1), (4, 3), (1, 1)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            assert!(Files::open(&path).unwrap().is_none());
            let limits = LogLimits { bytes: Some(100), files };
            let mut writer = LogWriter::open(&path, limits).unwrap();
            let mut reader = Files::open(&path).unwrap().unwrap();
            while reader.next().unwrap().is_some() {}
            let mut read = Vec::new();
            for number in 0..40 {
                let text = format!("{files}-{step}-{number}\n");
                writer.write(Stream::Output, text.as_bytes(), Moment::from_seconds(number)).unwrap();
                while number % step == 0
                    && let Some(record) = reader.next().unwrap()
                {
                    read.push(String::from_utf8(record.text).unwrap());
                }
            }
            while let Some(record) = reader.next().unwrap() {
                read.push(String::from_utf8(record.text).unwrap());
            }
            let all: Vec<String> = (0..40).map(|number| format!("{files}-{step}-{number}")).collect();
            assert_eq!(read, all);
        }
    }

    #[test]
    fn a_record_may_come_in_pieces_and_none_is_endless() {
        use std::io::Write as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"hel").unwrap();
        let mut reader = Files::open(&path).unwrap().unwrap();
        assert_eq!(reader.next().unwrap(), None);
        file.write_all(b"lo\n").unwrap();
        assert_eq!(reader.next().unwrap().unwrap().text, b"hello");
        file.write_all(&vec![b'x'; 3 << 20]).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().text.len(), 1 << 20);
    }
}
