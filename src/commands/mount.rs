//! `layerfs mount`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::args::{MountArgs, OwnerArg};
use super::progress::{Indexing, Told};
use super::{environment, inspect};
use crate::container::mounts::{self, MountPlan};
use crate::container::{
    Changes, Config, Containers, Held, ImageRecord, NewContainer, Owners, Purpose, State, sweeping,
};
use crate::fuse::Flag;
use crate::image::{self, Image};
use crate::images;
use crate::mount::{self, Caches, Layers, MountSpec};
use crate::store::Store;

/// Mounts, prints the container's id, and returns when the mount is usable; with `--foreground`, when it is gone.
pub(super) fn run(args: MountArgs) -> anyhow::Result<u8> {
    let options = Options::parse(&args)?;
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    sweeping::sweep(&containers);
    let (fresh, prepared) = match &args.container {
        Some(id) => (false, again(&args, &containers, &store, id)?),
        None => (true, new(&args, &options, &containers, &store)?),
    };
    let Prepared { held, image, layers, target } = prepared;
    let upper = held.upper_dirs();
    let mut flags = options.flags;
    if upper.is_none() && !flags.contains(&Flag::ReadOnly) {
        flags.push(Flag::ReadOnly);
    }
    let plan = MountPlan {
        target,
        upper,
        source: image.name,
        allow_other: options.allow_other,
        flags,
        fresh,
        remove_at_end: args.rm || held.config().remove_at_end,
    };
    let id = held.id();
    let tell = || if args.quiet { Ok(()) } else { super::print(&format!("{id}\n")) };
    if args.foreground {
        let mut told = Ok(());
        mounts::mount_in_foreground(&containers, held, layers, &plan, &mut || told = tell())?;
        told?;
    } else {
        mounts::mount_in_background(&containers, held, layers, &plan)?;
        tell()?;
    }
    Ok(0)
}

/// All that a mount needs.
struct Prepared {
    held: Held,
    image: Image,
    layers: Layers,
    target: PathBuf,
}

fn prepare(store: &Store, image: &Image, target: &Path, told: Told) -> anyhow::Result<Layers> {
    mounts::must_be_free(target)?;
    let caches = environment::caches(store, image, &[])?;
    open_layers_told(store, image, caches, told)
}

/// Opens an image's layers, indexing those that were never seen.
pub(super) fn open_layers(store: &Store, image: &Image, caches: Caches) -> anyhow::Result<Layers> {
    open_layers_told(store, image, caches, Told::Progress)
}

/// The same, and says whether progress is shown.
pub(super) fn open_layers_told(
    store: &Store,
    image: &Image,
    caches: Caches,
    told: Told,
) -> anyhow::Result<Layers> {
    let spec = MountSpec { layers: image.layers.clone(), index_dir: store.index_dir(), caches };
    Ok(spec.layers(&Indexing::of(&spec, told))?)
}

/// A new container for this mount, made last: indexing can take long and be interrupted.
fn new(
    args: &MountArgs,
    options: &Options,
    containers: &Containers,
    store: &Store,
) -> anyhow::Result<Prepared> {
    let (Some(spec), Some(dir)) = (&args.image, &args.dir) else { bail!("IMAGE and DIR are needed") };
    let target = mount::mount_point(dir)?;
    let told = Told::unless(args.quiet);
    let image = args.lazy.open(&args.pull, spec, &args.platform, store, told)?;
    let layers = prepare(store, &image, &target, told)?;
    let changes = match (&args.upper, options.flags.contains(&Flag::ReadOnly)) {
        (_, true) => Changes::Refused,
        (Some(dir), false) => Changes::In(made(dir)?),
        (None, false) => Changes::Own,
    };
    // Nobody removes the image from now on until the container says that it needs it.
    let using = images::claim(store, &image)?;
    let held = containers.create(NewContainer {
        name: None,
        image: ImageRecord::of(&image),
        purpose: Purpose::Mount,
        command: Vec::new(),
        owners: owners(args.owner),
        // Nothing is kept of a mount that takes no changes.
        remove_at_end: args.rm || changes == Changes::Refused,
        run: None,
        changes,
    })?;
    drop(using);
    Ok(Prepared { held, image, layers, target })
}

/// A container that was mounted or run before.
fn again(args: &MountArgs, containers: &Containers, store: &Store, id: &str) -> anyhow::Result<Prepared> {
    let told = Told::unless(args.quiet);
    let container = containers.find(id)?;
    // With --container the only argument is where; it may also be where it was.
    let dir = match (&args.image, &args.dir, container.status()?.state) {
        (Some(image), Some(dir), _) => {
            let known = &container.config().image;
            // The same image may be called differently; an fstab line names it by its path.
            let is_same = *image == known.name
                || *image == known.source
                || known.is(&args.platform.open(image, store, told)?);
            anyhow::ensure!(is_same, "{id} is a container of {}, not of {image}", known.name);
            dir.clone()
        }
        (Some(dir), None, _) => PathBuf::from(dir),
        (None, _, State::Mounted { mountpoint, .. }) => mountpoint,
        (None, ..) => bail!("where? give a directory"),
    };
    let same_owner = args.owner.is_none_or(|owner| owners(Some(owner)) == container.config().owners);
    anyhow::ensure!(same_owner, "--owner: container {id} was made with the other one: leave the option out");
    let target = mount::mount_point(&dir)?;
    let held = containers.hold(container)?;
    let image = image_of(held.config(), store, told)?;
    let layers = prepare(store, &image, &target, told)?;
    Ok(Prepared { held, image, layers, target })
}

/// The image that a container was made with.
pub(super) fn image_of(config: &Config, store: &Store, told: Told) -> anyhow::Result<Image> {
    let record = &config.image;
    let image = image::open_sought(&record.source, store, &inspect::any(told))?;
    anyhow::ensure!(
        record.is(&image),
        "{}: no longer the image of container {}",
        record.source,
        config.id.short()
    );
    Ok(image)
}

fn made(dir: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("--upper {}", dir.display()))?;
    dir.canonicalize().with_context(|| format!("--upper {}", dir.display()))
}

fn owners(owner: Option<OwnerArg>) -> Owners {
    match owner {
        Some(OwnerArg::Caller) => Owners::Caller,
        Some(OwnerArg::Image) => Owners::Image,
        None if rustix::process::geteuid().is_root() => Owners::Image,
        None => Owners::Caller,
    }
}

/// What `-o` and its kin say.
struct Options {
    flags: Vec<Flag>,
    allow_other: bool,
}

impl Options {
    fn parse(args: &MountArgs) -> anyhow::Result<Self> {
        let mut options = Self { flags: Vec::new(), allow_other: false };
        if args.read_only {
            options.set(Flag::ReadOnly, true);
        }
        for option in args.options.iter().flat_map(|list| list.split(',')) {
            match option {
                "ro" => options.set(Flag::ReadOnly, true),
                "rw" => options.set(Flag::ReadOnly, false),
                "dev" => options.set(Flag::Dev, true),
                "nodev" => options.set(Flag::Dev, false),
                "suid" => options.set(Flag::Suid, true),
                "nosuid" => options.set(Flag::Suid, false),
                "exec" => options.set(Flag::NoExec, false),
                "noexec" => options.set(Flag::NoExec, true),
                "noatime" => options.set(Flag::NoAtime, true),
                "atime" | "relatime" => options.set(Flag::NoAtime, false),
                "nodiratime" => options.set(Flag::NoDirAtime, true),
                "diratime" => options.set(Flag::NoDirAtime, false),
                "passthrough" => options.set(Flag::Passthrough, true),
                "writeback" => options.set(Flag::Writeback, true),
                "allow_other" => options.allow_other = true,
                // What is so anyway, and what mount(8) adds of its own.
                "" | "default_permissions" | "defaults" | "_netdev" | "user" | "users" => {}
                unknown => bail!("-o {unknown}: unknown mount option: see layerfs mount --help"),
            }
        }
        Ok(options)
    }

    fn set(&mut self, flag: Flag, on: bool) {
        self.flags.retain(|set| *set != flag);
        if on {
            self.flags.push(flag);
        }
    }
}
