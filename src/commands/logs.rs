//! `layerfs logs`

use std::io::{self, Write as _};

use anyhow::Context as _;

use super::container_args::LogsArgs;
use super::{environment, selection};
use crate::container::log::{self, LogError, Record, Wanted};
use crate::container::{Moment, spoken_time};
use crate::launcher::{self, Stream};

/// Shows what a container printed, where it printed it.
pub(super) fn run(args: &LogsArgs) -> anyhow::Result<u8> {
    let now = Moment::now();
    let time = |option, text: &Option<String>| {
        let parse = |text: &String| {
            spoken_time::parse(text, now).with_context(|| format!("--{option} {text}: no time: see --help"))
        };
        text.as_ref().map(parse).transpose()
    };
    let wanted = Wanted {
        since: time("since", &args.since)?,
        until: time("until", &args.until)?,
        tail: match args.tail.as_str() {
            "all" | "-1" => None,
            lines => Some(lines.parse().ok().with_context(|| format!("--tail {lines}: a number, or all"))?),
        },
        follow: args.follow,
    };
    let containers = environment::containers(&environment::store()?)?;
    let container = match &args.container {
        Some(text) => containers.find(text)?,
        None => containers.find(&selection::latest(&containers)?)?,
    };
    let mut shown = Shown { timestamps: args.timestamps, inside: [false; 2] };
    match log::show(&container, &wanted, &mut |record| shown.show(record)) {
        // Who reads it has got what it wanted.
        Err(LogError::Show(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(error.into()),
        Ok(()) => {
            io::stdout().flush().context("standard output")?;
            Ok(0)
        }
    }
}

struct Shown {
    timestamps: bool,
    /// Whether a line of standard output, and of standard error, has begun.
    inside: [bool; 2],
}

impl Shown {
    fn show(&mut self, record: &Record) -> io::Result<()> {
        let inside = &mut self.inside[usize::from(record.stream == Stream::Errors)];
        let mut text = Vec::new();
        if let (true, false, Some(time)) = (self.timestamps, *inside, record.time) {
            text.extend_from_slice(format!("{time} ").as_bytes());
        }
        text.extend_from_slice(&record.text);
        if record.ends_line {
            text.push(b'\n');
        }
        *inside = !record.ends_line;
        launcher::show(record.stream, &text)
    }
}
