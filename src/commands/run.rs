//! `layerfs run`

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::args::NetworkArg;
use super::container_args::{CreateArgs, ProcessArgs, RunArgs};
use super::progress::Told;
use super::{environment, failure, mount};
use crate::container::command_line::{self, Wishes};
use crate::container::log::LogLimits;
use crate::container::running::{self, Ready, RunError};
use crate::container::{
    Changes, Containers, Held, ImageRecord, NewContainer, Owners, Purpose, State, ending,
};
use crate::fuse::Writes;
use crate::launcher::Volume;
use crate::mount::Layers;
use crate::sys::process;

/// Runs a command in a new container and gives its exit code; in the background that it was started.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let wanted = &args.container;
    if !args.detach {
        must_be_terminal(&wanted.process)?;
    }
    let made = make(wanted)?;
    if args.detach {
        let id = made.held.id();
        return match made.begin_in_background()? {
            Ok(layers) => {
                // This process is about to end: to unmap all indexes one by one first takes as long as to open them.
                std::mem::forget(layers);
                super::print(&format!("{id}\n")).map(|()| 0)
            }
            Err(error) => Ok(told(&error)),
        };
    }
    match made.begin()? {
        Ok(code) => Ok(code),
        Err(error) => Ok(told(&error)),
    }
}

/// Makes a container and prints its id.
pub(super) fn create(args: &CreateArgs) -> anyhow::Result<u8> {
    let made = make(args)?;
    // Also where it is to be removed at its end: that is not now.
    made.held.set_state(&State::Created)?;
    super::print(&format!("{}\n", made.held.id()))?;
    Ok(0)
}

/// A container that can be started.
pub(super) struct Made {
    pub(super) containers: Containers,
    pub(super) held: Held,
    pub(super) layers: Layers,
    pub(super) wishes: Wishes,
    /// Nothing but its own output is printed.
    pub(super) quiet: bool,
}

fn make(args: &CreateArgs) -> anyhow::Result<Made> {
    let wishes = wishes(args)?;
    let cidfile = args.cidfile.as_deref().map(CidFile::claim).transpose()?;
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    ending::sweep(&containers);
    let progress = Told::unless(args.quiet);
    let image = args.platform.open(&args.image, &store, progress)?;
    if let Some(signal) = &image.config.config.stop_signal {
        ensure!(process::signal_number(signal).is_some(), "the image's StopSignal {signal:?} is no signal");
    }
    let arguments = command_line::arguments(&image.config.config, &wishes)?;
    let caches = environment::caches(&store, &image, &arguments)?;
    let layers = mount::open_layers_told(&store, &image, caches, progress)?;
    let held = containers.create(NewContainer {
        name: args.name.clone(),
        image: ImageRecord::of(&image),
        purpose: Purpose::Run,
        command: arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect(),
        owners: Owners::Image,
        changes: Changes::Own,
        remove_at_end: args.rm,
        run: Some(wishes.clone()),
    })?;
    if let Some(cidfile) = cidfile {
        cidfile.fill(&held)?;
    }
    Ok(Made { containers, held, layers, wishes, quiet: args.quiet })
}

impl Made {
    fn ready(self) -> anyhow::Result<(Containers, Ready)> {
        let Self { containers, held, layers, wishes, .. } = self;
        let image = &held.config().image.process;
        let arguments = command_line::arguments(image, &wishes)?;
        let mount_point = held.dir().join("mnt");
        let plan = command_line::plan(&held.id().to_string(), mount_point, arguments, image, &wishes)?;
        let writes = if wishes.writeback { Writes::Back } else { Writes::Through };
        Ok((containers, Ready { held, layers, writes, plan }))
    }

    /// Runs it to its end.
    pub(super) fn begin(self) -> anyhow::Result<Result<u8, RunError>> {
        let quiet = self.quiet;
        let (containers, ready) = self.ready()?;
        Ok(running::run(&containers, ready, &mut |reason| tell_single_id(quiet, reason)))
    }

    /// Starts it.
    pub(super) fn begin_in_background(self) -> anyhow::Result<Result<Layers, RunError>> {
        let quiet = self.quiet;
        let (containers, ready) = self.ready()?;
        Ok(running::run_in_background(&containers, ready, &mut |reason| tell_single_id(quiet, reason)))
    }
}

fn tell_single_id(quiet: bool, reason: &str) {
    if !quiet {
        super::complain(&format!("layerfs: only one user id inside: {reason}"));
    }
}

/// A file that gets a container's id. It is there, and empty, from before the container is made, so that of two nobody
/// loses its id; it goes when no container comes about.
struct CidFile<'a> {
    path: &'a Path,
    is_filled: bool,
}

impl<'a> CidFile<'a> {
    fn claim(path: &'a Path) -> anyhow::Result<Self> {
        let made = std::fs::File::create_new(path);
        made.with_context(|| format!("--cidfile {}", path.display()))?;
        Ok(Self { path, is_filled: false })
    }

    fn fill(mut self, held: &Held) -> anyhow::Result<()> {
        let written = std::fs::write(self.path, held.id().to_string());
        self.is_filled = written.is_ok();
        written.with_context(|| format!("--cidfile {}", self.path.display()))
    }
}

impl Drop for CidFile<'_> {
    fn drop(&mut self) {
        if !self.is_filled {
            // Why there is no container is said already.
            std::fs::remove_file(self.path).ok();
        }
    }
}

/// A start that failed has an exit code of its own.
pub(super) fn told(error: &RunError) -> u8 {
    super::complain(&format!("Error: {}", failure::line(error)));
    error.exit_code()
}

fn wishes(args: &CreateArgs) -> anyhow::Result<Wishes> {
    Ok(Wishes {
        entrypoint: args.entrypoint.clone(),
        command: args.command.clone(),
        hostname: args.hostname.clone(),
        volumes: args.volume.iter().map(|text| volume(text)).collect::<anyhow::Result<_>>()?,
        read_only: args.read_only,
        host_network: args.network == NetworkArg::Host,
        writeback: args.writeback,
        log: log_limits(&args.log_opt)?,
        ..of_process(&args.process)?
    })
}

/// A terminal needs one of the user's to take its input from.
pub(super) fn must_be_terminal(args: &ProcessArgs) -> anyhow::Result<()> {
    let is_terminal = !(args.tty && args.interactive) || std::io::stdin().is_terminal();
    ensure!(is_terminal, "the input device is not a TTY: leave out -t, or -i");
    Ok(())
}

/// What a command has for itself.
pub(super) fn of_process(args: &ProcessArgs) -> anyhow::Result<Wishes> {
    Ok(Wishes {
        env: variables(&args.env_file, &args.env)?,
        workdir: args.workdir.clone().map(Into::into),
        user: args.user.clone(),
        terminal: args.tty,
        interactive: args.interactive,
        ..Wishes::default()
    })
}

/// What `--env-file` and `-e` say.
fn variables(files: &[PathBuf], variables: &[String]) -> anyhow::Result<Vec<OsString>> {
    let mut env = Vec::new();
    for file in files {
        let text = std::fs::read(file).with_context(|| format!("--env-file {}", file.display()))?;
        env.extend(env_file(&text).with_context(|| format!("--env-file {}", file.display()))?);
    }
    for variable in variables {
        env.extend(variable_of(variable.as_ref())?);
    }
    Ok(env)
}

/// Docker's `max-size` and `max-file`.
fn log_limits(options: &[String]) -> anyhow::Result<LogLimits> {
    let mut limits = LogLimits::default();
    for option in options {
        match option.split_once('=') {
            Some(("max-size", "-1")) => limits.bytes = None,
            Some(("max-size", size)) => {
                let bytes = environment::bytes_of(&size.to_ascii_uppercase()).filter(|bytes| *bytes > 0);
                limits.bytes = Some(bytes.with_context(|| format!("--log-opt {option}: such as 10m"))?);
            }
            Some(("max-file", files)) => {
                let files = files.parse().ok().filter(|files| (1..=LOG_FILES_MAX).contains(files));
                limits.files =
                    files.with_context(|| format!("--log-opt {option}: from 1 to {LOG_FILES_MAX}"))?;
            }
            _ => bail!("--log-opt {option}: max-size=BYTES and max-file=N are known"),
        }
    }
    Ok(limits)
}

/// Each is renamed when one is full.
const LOG_FILES_MAX: u32 = 1000;

/// `KEY=value`, or `KEY` for the caller's value, if it has one.
fn variable_of(text: &std::ffi::OsStr) -> anyhow::Result<Option<OsString>> {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let bytes = text.as_bytes();
    ensure!(!bytes.is_empty() && bytes[0] != b'=', "-e {}: no name before the =", text.display());
    if bytes.contains(&b'=') {
        return Ok(Some(text.to_owned()));
    }
    let joined = |value: OsString| OsString::from_vec([bytes, b"=", value.as_bytes()].concat());
    Ok(std::env::var_os(text).map(joined))
}

/// One variable in each line, taken literally as docker does; `#` begins a comment.
fn env_file(text: &[u8]) -> anyhow::Result<Vec<OsString>> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut variables = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if !line.is_empty() && line[0] != b'#' {
            variables.extend(variable_of(std::ffi::OsStr::from_bytes(line))?);
        }
    }
    Ok(variables)
}

/// `SRC:DST[:OPTIONS]`
fn volume(text: &str) -> anyhow::Result<Volume> {
    let mut parts = text.split(':');
    let (source, destination) = match (parts.next(), parts.next()) {
        (Some(source), Some(destination)) if !source.is_empty() => (source, destination),
        _ => bail!("-v {text}: expected SRC:DST or SRC:DST:ro"),
    };
    let mut read_only = false;
    for option in parts.next().unwrap_or_default().split(',') {
        match option {
            "" | "rw" => {}
            "ro" => read_only = true,
            // Labels of SELinux: nothing to do without it.
            "z" | "Z" => {}
            unknown => bail!("-v {text}: unknown option {unknown:?}: ro and rw are known"),
        }
    }
    ensure!(parts.next().is_none(), "-v {text}: too many colons");
    ensure!(destination.starts_with('/'), "-v {text}: the path in the container must be absolute");
    let by_path = source.starts_with('/') || source.starts_with('.');
    ensure!(by_path, "-v {text}: named volumes are not supported: give a path such as ./{source}");
    let source = Path::new(source).canonicalize().with_context(|| format!("-v {text}: {source}"))?;
    Ok(Volume { source, destination: PathBuf::from(destination), read_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_files_are_literal() {
        let text = b"# comment\n\nA=1\n B=\"x y\" # no comment\r\nLAYERFS_SURELY_UNSET\nC=a=b\n";
        assert_eq!(env_file(text).unwrap(), ["A=1", "B=\"x y\" # no comment", "C=a=b"]);
        assert!(env_file(b"=x\n").is_err());
    }

    #[test]
    fn limits_of_logs() {
        let limits = |options: &[&str]| {
            log_limits(&options.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map(|limits| (limits.bytes, limits.files))
                .map_err(|error| error.to_string())
        };
        assert_eq!(limits(&[]), Ok((None, 1)));
        assert_eq!(limits(&["max-size=10m", "max-file=3"]), Ok((Some(10 << 20), 3)));
        assert_eq!(limits(&["max-size=5", "max-size=-1"]), Ok((None, 1)));
        for wrong in ["max-size=0", "max-size=x", "max-file=0", "max-file=1001", "tag=x", "max-size"] {
            assert!(limits(&[wrong]).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn volumes() {
        let made = volume("/tmp:/data:ro").unwrap();
        assert_eq!((made.destination.as_path(), made.read_only), (Path::new("/data"), true));
        for wrong in
            ["/tmp", ":/x", "/tmp:x", "/tmp:/x:odd", "/tmp:/x:ro:y", "name:/x", "/surely/not/there:/x"]
        {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
    }
}
