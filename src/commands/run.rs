//! `layerfs run`

use std::path::Path;

use anyhow::{Context as _, ensure};

use super::container_args::{CreateArgs, RunArgs};
use super::options::userns;
use super::progress::Told;
use super::{attach, environment, failure, mount};
use crate::container::attaching::Attach;
use crate::container::background;
use crate::container::restarting::RestartPolicy;
use crate::container::running::{self, Ready, RunError};
use crate::container::{
    Changes, ContainerError, Containers, Held, ImageRecord, NewContainer, Owners, Purpose, State, Wishes,
    command_line, ending, sweeping,
};
use crate::fuse::Writes;
use crate::image::Image;
use crate::images;
use crate::launcher::EarlyUsers;
use crate::mount::Layers;
use crate::store::Store;
use crate::sys::process;

/// Runs a command in a new container and gives its exit code; in the background that it was started.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let wanted = &args.container;
    if !args.detach {
        wanted.process.must_be_terminal()?;
        ensure!(
            args.sig_proxy.sig_proxy || wanted.process.tty,
            "--sig-proxy=false: without a terminal the container ends with this command: give -t, or -d and then use \
             `layerfs attach`"
        );
    }
    let has_background = args.detach || wanted.process.tty;
    ensure!(
        has_background || wanted.life.restart_policy()? == RestartPolicy::No,
        "--restart {}: without a terminal the container ends with this command: give -d, or -it",
        wanted.life.restart
    );
    ensure!(
        has_background || wanted.health.health_cmd.is_none(),
        "--health-cmd: what runs here without a terminal is not checked: give -d, or -it"
    );
    // Beside all that comes before it is needed.
    // What brings the rest of an image is a process of its own, which would hold on to its pipes.
    let users = if args.lazy.lazy { None } else { EarlyUsers::begin() };
    let open =
        |store: &Store, told| args.lazy.open(&wanted.pull, &wanted.image, &wanted.platform, store, told);
    let made = Made { users, ..make(wanted, &open)? };
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
    let how = wanted.life.keys.attach(&made.wishes, wanted.process.interactive, args.sig_proxy)?;
    made.begin_here(&how)
}

/// Makes a container and prints its id.
pub(super) fn create(args: &CreateArgs) -> anyhow::Result<u8> {
    let open = |store: &Store, told| args.pull.open(&args.image, &args.platform, store, told);
    let made = make(args, &open)?;
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
    /// Its user namespace, if that was made ahead.
    pub(super) users: Option<EarlyUsers>,
    /// Nothing but its own output is printed.
    pub(super) quiet: bool,
}

fn make(args: &CreateArgs, open: &dyn Fn(&Store, Told) -> anyhow::Result<Image>) -> anyhow::Result<Made> {
    let mut wishes = wishes(args)?;
    let keeps = wishes.restart == RestartPolicy::No || !args.rm;
    ensure!(keeps, "--rm and --restart {} contradict each other: leave one out", wishes.restart);
    let cidfile = args.cidfile.as_deref().map(CidFile::claim).transpose()?;
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    sweeping::sweep(&containers);
    let progress = Told::unless(args.quiet);
    let image = open(&store, progress)?;
    if let Some(signal) = &image.config.config.stop_signal {
        ensure!(process::signal_number(signal).is_some(), "the image's StopSignal {signal:?} is no signal");
    }
    wishes.health = args.health.wanted(&image.config.config)?;
    let arguments = command_line::arguments(&image.config.config, &wishes)?;
    let caches = environment::caches(&store, &image, &arguments)?;
    let layers = mount::open_layers_told(&store, &image, caches, progress)?;
    let claim = userns::claim(&containers, &mut wishes, &image, &layers)?;
    containers.volumes()?.resolve(&mut wishes.volumes)?;
    // Nobody removes the image from now on until the container says that it needs it.
    let using = images::claim(&store, &image)?;
    let created = containers.create(NewContainer {
        name: args.name.clone(),
        image: ImageRecord::of(&image),
        purpose: Purpose::Run,
        command: arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect(),
        owners: Owners::Image,
        changes: Changes::Own,
        remove_at_end: args.rm,
        run: Some(wishes.clone()),
    });
    drop((claim, using));
    let held = created?;
    if let Err(error) = provide_volumes(&containers, &wishes) {
        ending::discard(&containers, held)?;
        return Err(error.into());
    }
    if let Some(cidfile) = cidfile {
        cidfile.fill(&held)?;
    }
    Ok(Made { containers, held, layers, wishes, users: None, quiet: args.quiet })
}

/// Makes the volumes that a container is to have and that are not there.
pub(super) fn provide_volumes(containers: &Containers, wishes: &Wishes) -> Result<(), ContainerError> {
    if wishes.volumes.is_empty() {
        return Ok(());
    }
    let volumes = containers.volumes()?;
    volumes.provide(&wishes.volumes, &volumes.keep()?)
}

impl Made {
    fn ready(self) -> anyhow::Result<(Containers, Ready)> {
        let Self { containers, held, layers, wishes, users, .. } = self;
        let image = &held.config().image.process;
        let arguments = command_line::arguments(image, &wishes)?;
        let mount_point = held.dir().join("mnt");
        let plan = command_line::plan(&held.id().to_string(), mount_point, arguments, image, &wishes)?;
        let writes = if wishes.writeback { Writes::Back } else { Writes::Through };
        Ok((containers, Ready { held, layers, writes, plan, users }))
    }

    /// Runs it until it ends, or is detached, and gives what to exit with. With a terminal it does not depend on this process.
    pub(super) fn begin_here(self, how: &Attach) -> anyhow::Result<u8> {
        let done = if self.wishes.terminal { self.begin_attached(how)? } else { self.begin()? };
        Ok(done.unwrap_or_else(|error| told(&error)))
    }

    fn begin_attached(self, how: &Attach) -> anyhow::Result<Result<u8, RunError>> {
        let quiet = self.quiet;
        let (containers, ready) = self.ready()?;
        let told = &mut |reason: &str| tell_single_id(quiet, reason);
        Ok(background::run_attached(&containers, ready, how, told).map(|(left, layers)| {
            std::mem::forget(layers);
            attach::left(left)
        }))
    }

    fn begin(self) -> anyhow::Result<Result<u8, RunError>> {
        let quiet = self.quiet;
        let (containers, ready) = self.ready()?;
        Ok(running::run(&containers, ready, &mut |reason| tell_single_id(quiet, reason)))
    }

    /// Starts it.
    pub(super) fn begin_in_background(self) -> anyhow::Result<Result<Layers, RunError>> {
        let quiet = self.quiet;
        let (containers, ready) = self.ready()?;
        Ok(background::run_in_background(&containers, ready, &mut |reason| tell_single_id(quiet, reason)))
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
    let mut wishes = Wishes {
        entrypoint: args.entrypoint.clone(),
        command: args.command.clone(),
        ..args.process.wishes()?
    };
    args.life.add_to(&mut wishes)?;
    args.storage.add_to(&mut wishes)?;
    args.network.add_to(&mut wishes)?;
    args.rights.add_to(&mut wishes)?;
    args.userns.add_to(&mut wishes)?;
    args.rlimits.add_to(&mut wishes)?;
    args.resources.add_to(&mut wishes)?;
    args.runtime.add_to(&mut wishes)?;
    Ok(wishes)
}
