//! Showing a log, also while it is written.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::Record;
use super::files::Files;
use crate::container::{Container, ContainerError, ContainerId, Moment, State};

/// How long it is before a log that has come to its end is looked at again.
const PAUSE: Duration = Duration::from_millis(50);

/// What of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Not what is older.
    pub since: Option<Moment>,
    /// Nor what is younger.
    pub until: Option<Moment>,
    /// The last so many lines of what is left of that.
    pub tail: Option<usize>,
    /// And what comes, until the container ends.
    pub follow: bool,
}

/// Why a log is not shown.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// It has run, but nothing was kept.
    #[error("container {} ({name}) printed where it was started: only what is started in the background is kept", id.short())]
    NotKept {
        /// Which.
        id: ContainerId,
        /// Its name.
        name: String,
    },
    /// Who is shown the log does not take it.
    #[error(transparent)]
    Show(io::Error),
}

impl Wanted {
    fn wants(&self, record: &Record) -> bool {
        record.time.or_else(|| time_of_ours(record)).is_none_or(|time| {
            self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
        })
    }
}

/// When a message of our own was logged, which is no record of the program's: its line begins with that.
fn time_of_ours(record: &Record) -> Option<Moment> {
    let first = record.text.split(|byte| *byte == b' ').next()?;
    std::str::from_utf8(first).ok()?.parse().ok()
}

/// Gives the records of a container's log to `each`, the oldest first.
///
/// # Errors
/// [`LogError`]
pub fn show(
    container: &Container,
    wanted: &Wanted,
    each: &mut dyn FnMut(&Record) -> io::Result<()>,
) -> Result<(), LogError> {
    let path = container.log_path();
    let failed = |error| LogError::Container(ContainerError::io("read", &path)(error));
    let Some(mut files) = Files::open(&path).map_err(failed)? else {
        let (id, name) = (container.id(), container.config().name.clone());
        return match container.status()?.state {
            State::Created => Ok(()),
            _ => Err(LogError::NotKept { id, name }),
        };
    };
    let mut last = Last::new(wanted.tail);
    while let Some(record) = files.next().map_err(failed)? {
        if !wanted.wants(&record) {
            continue;
        }
        match wanted.tail {
            None => each(&record).map_err(LogError::Show)?,
            Some(_) => last.push(record),
        }
    }
    last.records.iter().try_for_each(&mut *each).map_err(LogError::Show)?;
    let mut follows = wanted.follow;
    while follows {
        // Before the log is looked at: all is written when the container is let go of. One that goes away goes with it.
        follows = container.status().is_ok_and(|status| status.held);
        while let Some(record) = files.next().map_err(failed)? {
            if wanted.wants(&record) {
                each(&record).map_err(LogError::Show)?;
            }
        }
        if follows {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// The last lines.
struct Last {
    records: VecDeque<Record>,
    /// How many lines may be kept.
    lines_max: usize,
    /// How many have ended.
    ended: usize,
}

impl Last {
    fn new(lines_max: Option<usize>) -> Self {
        Self { records: VecDeque::new(), lines_max: lines_max.unwrap_or_default(), ended: 0 }
    }

    fn push(&mut self, record: Record) {
        self.ended += usize::from(record.ends_line);
        let begun = usize::from(!record.ends_line);
        self.records.push_back(record);
        while self.ended + begun > self.lines_max {
            let Some(record) = self.records.pop_front() else { return };
            if record.ends_line {
                self.ended -= 1;
            } else if self.records.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launcher::Stream;

    fn last(lines: usize, texts: &[&str]) -> String {
        let mut last = Last::new(Some(lines));
        for text in texts {
            let ends_line = text.ends_with('\n');
            last.push(Record {
                time: None,
                stream: Stream::Output,
                ends_line,
                text: text.as_bytes().to_vec(),
            });
        }
        last.records.iter().map(|record| String::from_utf8_lossy(&record.text).into_owned()).collect()
    }

    #[test]
    fn the_last_lines() {
        assert_eq!(last(2, &["a\n", "b\n", "c\n"]), "b\nc\n");
        assert_eq!(last(2, &["a\n", "b1", "b2\n", "c\n"]), "b1b2\nc\n");
        assert_eq!(last(1, &["a\n", "b1", "b2\n"]), "b1b2\n");
        assert_eq!(last(1, &["a\n", "b", "b"]), "bb");
        assert_eq!(last(5, &["a\n"]), "a\n");
        assert_eq!(last(0, &["a\n", "b"]), "");
    }

    #[test]
    fn times() {
        let record = |time| Record { time, stream: Stream::Output, ends_line: true, text: Vec::new() };
        let at = Moment::from_seconds;
        let wanted = Wanted { since: Some(at(5)), until: Some(at(7)), ..Wanted::default() };
        let wants = [4, 5, 7, 8].map(|seconds| wanted.wants(&record(Some(at(seconds)))));
        assert_eq!(wants, [false, true, true, false]);
        assert!(wanted.wants(&record(None)));
        let ours = |time: &str| Record { text: format!("{time}  WARN odd").into_bytes(), ..record(None) };
        let wants = [4, 5, 7, 8].map(|seconds| wanted.wants(&ours(&at(seconds).to_string())));
        assert_eq!(wants, [false, true, true, false]);
        assert!(wanted.wants(&ours("odd")));
    }
}
