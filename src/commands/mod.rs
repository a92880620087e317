//! Row 11: the command line. Parse, call one library function, print: the only printing, and the only place that reads
//! the environment.

pub mod archive_args;
pub mod args;
mod attach;
mod build;
mod complete;
pub mod container;
pub mod container_args;
mod cp;
mod diff;
mod doctor;
mod environment;
mod exec;
mod failure;
mod files;
mod forms;
mod healthcheck;
mod history;
mod image;
pub mod image_args;
mod images;
mod import;
mod index;
mod inspect;
mod lazy;
mod load;
mod logging;
pub mod login;
mod logs;
mod look;
pub mod look_args;
mod lowers;
mod man;
mod mount;
pub mod mount_words;
pub mod options;
mod overlay_call;
mod overlay_mount;
mod overlay_options;
mod pause;
mod port;
mod progress;
mod prune;
mod ps;
mod pull;
pub mod push;
pub mod push_index;
mod registries;
mod rename;
mod rm;
mod run;
mod save;
pub mod search;
pub mod selection;
mod start;
mod stats;
mod stop;
mod store;
mod top;
mod transfers;
mod umount;
pub mod update;
mod verify;
pub mod volume;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command};

use crate::launcher;

/// What every failure of layerfs itself exits with, as docker and podman do.
const OWN_FAILURE: u8 = 125;

/// Runs the program with these arguments, the first being its own name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::sys::process::note_inherited_descriptors();
    crate::sys::process::stop_ignoring_children();
    crate::sys::memory::arrange();
    let args: Vec<OsString> = args.into_iter().collect();
    let done = if overlay_call::is_overlay_call(&args, command_names) {
        overlay_mount::run(args.into_iter().skip(1))
    } else {
        let command = match parse(&args) {
            Ok(command) => command,
            Err(error) => return usage(&error),
        };
        logging::start();
        let command = match command {
            Command::Container(args) => args.command.plain(),
            command => command,
        };
        own_program_for(&command).and_then(|()| dispatch(command))
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&format!("Error: {}", failure::line(error.as_ref())));
            ExitCode::from(OWN_FAILURE)
        }
    }
}

/// One command, without the grammar of the others.
#[derive(clap::Parser)]
struct Alone<A: clap::Args> {
    #[command(flatten)]
    args: A,
}

/// To put the grammar of all commands together takes half a millisecond: too much for those that others wait for. What makes
/// no sense alone is explained by the whole grammar.
fn parse(args: &[OsString]) -> Result<Command, clap::Error> {
    fn alone<A: clap::Args>(args: &[OsString]) -> Option<A> {
        Alone::try_parse_from(args).ok().map(|parsed| parsed.args)
    }
    let own = args.get(1..).unwrap_or_default();
    let parsed = match own.first().and_then(|name| name.to_str()) {
        Some("run") => alone(own).map(Command::Run),
        Some("exec") => alone(own).map(Command::Exec),
        Some("ps") => alone(own).map(Command::Ps),
        Some("stop") => alone(own).map(Command::Stop),
        Some("images") => alone(own).map(Command::Images),
        _ => None,
    };
    parsed.map_or_else(|| Cli::try_parse_from(args).map(|cli| cli.command), Ok)
}

/// Everything that can be said where a command is expected.
fn command_names() -> Vec<String> {
    let mut cli = Cli::command();
    cli.build();
    let names = |command: &clap::Command| {
        let aliases = command.get_all_aliases().map(str::to_owned);
        aliases.chain([command.get_name().to_owned()]).collect::<Vec<_>>()
    };
    cli.get_subcommands().flat_map(names).collect()
}

/// Does something to each container that was named and prints what comes of it. A failure is told, and the rest is done.
fn each<E: Into<anyhow::Error>>(
    texts: &[String],
    done: impl Fn(&str) -> Result<String, E>,
) -> anyhow::Result<u8> {
    let mut failed: Option<anyhow::Error> = None;
    for text in texts {
        match done(text) {
            Ok(line) => print(&format!("{line}\n"))?,
            Err(error) => {
                if let Some(earlier) = failed.replace(error.into()) {
                    complain(&format!("Error: {}", failure::line(earlier.as_ref())));
                }
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(0),
    }
}

/// Commands that start programs in containers.
fn own_program_for(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Run(_) | Command::Start(_) | Command::Restart(_) | Command::Exec(_) | Command::Build(_) => {
            Ok(launcher::make_own_program_unwritable()?)
        }
        _ => Ok(()),
    }
}

fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Mount(args) => mount::run(args),
        Command::Umount(args) => umount::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Attach(args) => attach::run(&args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Exec(args) => exec::run(&args),
        Command::Cp(args) => cp::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Container(args) => dispatch(args.command.plain()),
        Command::Create(args) => run::create(&args),
        Command::Start(args) => start::start(&args),
        Command::Restart(args) => start::restart(&args),
        Command::Wait(args) => start::wait(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Push(args) => push::run(&args),
        Command::Search(args) => search::search(&args),
        Command::SearchTags(args) => search::tags(&args),
        Command::Complete(args) => complete::run(&args),
        Command::Port(args) => port::run(&args),
        Command::Ps(args) => ps::run(&args),
        Command::Rename(args) => rename::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Stop(args) => stop::stop(&args),
        Command::Kill(args) => stop::kill(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Pause(args) => pause::pause(&args),
        Command::Unpause(args) => pause::unpause(&args),
        Command::Update(args) => update::run(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Image(args) => image::run(args),
        Command::History(args) => history::run(&args),
        Command::Rmi(args) => image::remove(&args),
        Command::Tag(args) => image::tag(&args),
        Command::Untag(args) => image::untag(&args),
        Command::Store(args) => store::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Save(args) => save::run(&args),
        Command::Index(args) => index::run(&args),
        Command::Ls(args) => look::ls(&args),
        Command::Tree(args) => look::tree(&args),
        Command::Cat(args) => look::cat(&args),
        Command::Which(args) => look::which(&args),
        Command::Login(args) => login::login(args),
        Command::Logout(args) => login::logout(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Volume(args) => volume::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "layerfs", &mut script);
            print(&String::from_utf8_lossy(&script))?;
            Ok(0)
        }
        Command::Man(args) => man::run(&args),
    }
}

/// Prints to standard output. A reader that has gone, as `head` goes, has got what it wanted.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output"),
    }
}

/// Prints a JSON document that holds other people's names: a terminal must not obey them.
fn print_json(text: &str) -> anyhow::Result<()> {
    print(&format!("{}\n", crate::look::safe_json(text)))
}

/// Prints what went wrong to standard error. It may hold other people's names.
fn complain(line: &str) {
    let lines: Vec<String> = line.split('\n').map(crate::look::told).collect();
    // Nobody is left to tell that nobody listens.
    writeln!(io::stderr(), "{}", lines.join("\n")).ok();
}

/// Whether the user says yes to what cannot be undone.
fn agreed(warning: &str) -> anyhow::Result<bool> {
    ensure!(io::stdin().is_terminal(), "{warning} There is no terminal to ask at: give --force");
    write!(io::stderr(), "{warning} Continue? [y/N] ").context("standard error")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("standard input")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Help and version are not errors.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done about a closed terminal.
    error.print().ok();
    ExitCode::from(if error.use_stderr() { OWN_FAILURE } else { 0 })
}
