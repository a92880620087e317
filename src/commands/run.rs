//! `layerfs run`

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::args::{NetworkArg, RunArgs};
use super::progress::Told;
use super::{environment, failure, mount};
use crate::container::command_line::{self, Wishes};
use crate::container::running::{self, RunError};
use crate::container::{Changes, ImageRecord, NewContainer, Owners, Purpose, ending};
use crate::fuse::Writes;
use crate::launcher::Volume;
use crate::sys::process;

/// Runs a command in a new container and gives its exit code.
pub(super) fn run(args: RunArgs) -> anyhow::Result<u8> {
    if args.tty && args.interactive {
        ensure!(std::io::stdin().is_terminal(), "the input device is not a TTY: leave out -t, or -i");
    }
    let wishes = wishes(&args)?;
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
    })?;
    let mount_point = held.dir().join("mnt");
    let plan =
        command_line::plan(&held.id().to_string(), mount_point, arguments, &image.config.config, &wishes)?;
    let quiet = args.quiet;
    let mut single_id = |reason: &str| {
        if !quiet {
            super::complain(&format!("layerfs: only one user id inside: {reason}"));
        }
    };
    let writes = if args.writeback { Writes::Back } else { Writes::Through };
    match running::run(&containers, held, layers, writes, &plan, &mut single_id) {
        Ok(code) => Ok(code),
        Err(error) => Ok(told(&error)),
    }
}

/// A start that failed has an exit code of its own.
fn told(error: &RunError) -> u8 {
    super::complain(&format!("Error: {}", failure::line(error)));
    error.exit_code()
}

fn wishes(args: &RunArgs) -> anyhow::Result<Wishes> {
    let mut env = Vec::new();
    for file in &args.env_file {
        let text = std::fs::read(file).with_context(|| format!("--env-file {}", file.display()))?;
        env.extend(env_file(&text).with_context(|| format!("--env-file {}", file.display()))?);
    }
    for variable in &args.env {
        env.extend(variable_of(variable.as_ref())?);
    }
    Ok(Wishes {
        entrypoint: args.entrypoint.clone(),
        command: args.command.clone(),
        env,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        volumes: args.volume.iter().map(|text| volume(text)).collect::<anyhow::Result<_>>()?,
        terminal: args.tty,
        interactive: args.interactive,
        read_only: args.read_only,
        host_network: args.network == NetworkArg::Host,
    })
}

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
