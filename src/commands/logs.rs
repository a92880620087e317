//! `layerfs logs`

use std::io::{self, Write as _};

use anyhow::{Context as _, anyhow};

use super::container_args::LogsArgs;
use super::{environment, selection};
use crate::container::log::{self, LogError, Record, Wanted};
use crate::container::{Container, Moment, spoken_time};
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
    let names = if args.latest { vec![selection::latest(&containers)?] } else { args.containers.clone() };
    let found: Vec<Container> = names.iter().map(|text| containers.find(text)).collect::<Result<_, _>>()?;
    let show = |container: &Container| {
        let name = args.names.then(|| container.config().name.clone());
        let mut shown = Shown { name, timestamps: args.timestamps, inside: [false; 2] };
        match log::show(container, &wanted, &mut |record| shown.show(record)) {
            // Who reads it has got what it wanted.
            Err(LogError::Show(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    };
    if args.follow {
        // All at the same time.
        std::thread::scope(|threads| {
            let all: Vec<_> = found.iter().map(|container| threads.spawn(|| show(container))).collect();
            let ended = all.into_iter().map(|one| one.join().map_err(|_| anyhow!("a log was not shown")));
            ended.collect::<Result<Vec<_>, _>>()?.into_iter().try_for_each(|shown| Ok(shown?))
        })
        .map_err(|error: anyhow::Error| error)?;
    } else {
        found.iter().try_for_each(show)?;
    }
    match io::stdout().flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(0),
    }
}

struct Shown {
    /// Of the container, when it is shown, too.
    name: Option<String>,
    timestamps: bool,
    /// Whether a line of standard output, and of standard error, has begun.
    inside: [bool; 2],
}

impl Shown {
    fn show(&mut self, record: &Record) -> io::Result<()> {
        let inside = &mut self.inside[usize::from(record.stream == Stream::Errors)];
        let mut text = Vec::new();
        if let (Some(name), false) = (&self.name, *inside) {
            text.extend_from_slice(format!("{name} ").as_bytes());
        }
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
