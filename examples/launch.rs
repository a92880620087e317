//! The launcher alone: runs a command in a plain directory. `launch [OPTIONS] DIRECTORY COMMAND...`
//!
//! Options: -i -t --host-network --read-only --single -u USER -w DIR -e K=V -v SRC:DST[:ro]

// A command of its own, so it may print.
#![allow(clippy::print_stderr)]

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use layerfs::launcher::{
    BindRootfs, Events, IdMaps, Names, Network, Plan, Volume, default_files, make_own_program_unwritable, run,
};

struct Told;

impl Events for Told {
    fn single_id(&mut self, reason: &str) {
        eprintln!("launch: single id: {reason}");
    }

    fn started(&mut self, program: i32, supervisor: i32) -> io::Result<()> {
        if std::env::var_os("LAUNCH_PIDS").is_some() {
            eprintln!("launch: program {program} supervisor {supervisor}");
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    match launch() {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("launch: {message}");
            ExitCode::from(2)
        }
    }
}

fn launch() -> Result<u8, String> {
    make_own_program_unwritable().map_err(|error| error.to_string())?;
    let mount_point = std::env::temp_dir().join(format!("launch-{}", std::process::id()));
    let id = format!("example-{}", std::process::id());
    let mut plan = Plan::new(&id, mount_point.clone(), Vec::new());
    let directory = parse(&mut plan)?;
    plan.files =
        default_files(&plan.hostname, plan.network, &Names::default()).map_err(|error| error.to_string())?;
    std::fs::create_dir(&mount_point).map_err(|error| format!("{}: {error}", mount_point.display()))?;
    let result = run(&plan, None, Box::new(BindRootfs::new(directory)), &mut Told);
    std::fs::remove_dir(&mount_point).map_err(|error| format!("{}: {error}", mount_point.display()))?;
    Ok(result.map(|ended| ended.code()).unwrap_or_else(|error| {
        eprintln!("launch: {error}");
        error.exit_code()
    }))
}

fn parse(plan: &mut Plan) -> Result<PathBuf, String> {
    let mut words = std::env::args_os().skip(1);
    let mut next = || words.next().ok_or_else(|| "usage: launch [OPTIONS] DIRECTORY COMMAND...".to_owned());
    let text = |word: OsString| word.into_string().map_err(|word| format!("{} is not UTF-8", word.display()));
    let directory = loop {
        let word = next()?;
        match word.to_str() {
            Some("-i") => plan.interactive = true,
            Some("-t") => plan.terminal = true,
            Some("--host-network") => plan.network = Network::Host,
            Some("--read-only") => {
                plan.read_only = true;
                plan.add_read_only_tmpfs();
            }
            Some("--single") => plan.id_maps = IdMaps::Single { reason: "it was asked for".to_owned() },
            Some("--create-cwd") => plan.create_cwd = true,
            Some("-u") => plan.user = text(next()?)?,
            Some("-w") => plan.cwd = PathBuf::from(next()?),
            Some("-e") => plan.env.push(next()?),
            Some("-v") => plan.volumes.push(volume(&text(next()?)?)?),
            _ => break PathBuf::from(word),
        }
    };
    plan.args = words.collect();
    Ok(directory)
}

fn volume(text: &str) -> Result<Volume, String> {
    let mut parts = text.split(':');
    let (Some(source), Some(destination)) = (parts.next(), parts.next()) else {
        return Err(format!("{text}: not SRC:DST[:ro]"));
    };
    let mut volume = Volume::new(PathBuf::from(source), PathBuf::from(destination));
    volume.flags.read_only = parts.next() == Some("ro");
    Ok(volume)
}
