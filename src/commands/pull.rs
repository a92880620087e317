//! `layerfs pull`, and `--pull` of those who open images.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::args::PlatformArg;
use super::options::pull::{PullArg, PullArgs, PullPolicy};
use super::options::registry::RegistryArgs;
use super::progress::{self, Told};
use super::{complain, environment, registries};
use crate::image::pull::{self, LayerState, Pulling};
use crate::image::{self, Image, ImageError, Reference, TargetPlatform};
use crate::model::Digest;
use crate::store::{Descriptor, Store};

/// More tags of one repository are not pulled by one command.
const TAGS_MAX: usize = 10_000;
/// Hex digits that tell one layer of an image from another.
const SHORT: usize = 12;

/// Pulls images and prints the id of each.
pub(super) fn run(args: &PullArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let told = Told::unless(args.quiet);
    let platform = platform(args)?;
    super::each(&args.names, |name| {
        let name = name.strip_prefix("docker://").unwrap_or(name);
        let reference: Reference = name.parse().with_context(|| name.to_owned())?;
        let mut wanted = vec![reference.clone()];
        if args.all_tags {
            let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
            ensure!(!has_tag, "{name}: --all-tags takes a name without tag and digest");
            let spec = registries::pull_spec(&reference, None, &args.registry)?;
            let tags = pull::tags(&store, &spec, TAGS_MAX)?;
            ensure!(!tags.is_empty(), "{name}: the registry has no tags of it");
            wanted = tags.iter().map(|tag| reference.with_tag(tag)).collect::<Result<_, _>>()?;
        }
        let mut ids = Vec::new();
        for reference in &wanted {
            ids.push(one(&store, reference, platform.clone(), &args.registry, told)?.hex());
        }
        anyhow::Ok(ids.join("\n"))
    })
}

fn platform(args: &PullArgs) -> anyhow::Result<Option<TargetPlatform>> {
    if args.arch.is_none() && args.os.is_none() && args.variant.is_none() {
        return Ok(args.platform.platform.clone());
    }
    let os = args.os.as_deref().unwrap_or("linux");
    let architecture = args.arch.as_deref().unwrap_or(image::host_architecture());
    let variant = args.variant.as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
    Ok(Some(format!("{os}/{architecture}{variant}").parse()?))
}

/// Pulls one image and gives its id.
fn one(
    store: &Store,
    reference: &Reference,
    platform: Option<TargetPlatform>,
    args: &RegistryArgs,
    told: Told,
) -> anyhow::Result<Digest> {
    let say = |line: String| {
        if told == Told::Progress {
            complain(&line);
        }
    };
    say(format!("Trying to pull {reference}..."));
    let spec = registries::pull_spec(reference, platform, args)?;
    let progress = Downloading::told(told);
    let pulled = pull::pull(store, &spec, &progress)?;
    drop(progress);
    say(format!("Digest: {}", pulled.digest));
    say(match pulled.is_new {
        true => format!("Status: Downloaded newer image for {}", pulled.name),
        false => format!("Status: Image is up to date for {}", pulled.name),
    });
    Ok(pulled.config_digest)
}

impl PullArg {
    /// Opens an image, which comes from its registry first if the policy says so.
    pub(super) fn open(
        &self,
        spec: &str,
        platform: &PlatformArg,
        store: &Store,
        told: Told,
    ) -> anyhow::Result<Image> {
        let open = || image::open_sought(spec, store, &platform.sought(told));
        // What is not a name cannot be pulled.
        let Some(reference) = image::named(spec) else { return Ok(open()?) };
        let pull = || one(store, &reference, platform.platform.clone(), &self.registry, told).map(drop);
        match self.pull {
            PullPolicy::Never => return Ok(open()?),
            PullPolicy::Always => pull()?,
            PullPolicy::Missing => match open() {
                Err(ImageError::NotFound { .. }) => {
                    pull().with_context(|| {
                        format!("{spec}: no such file, and no image of that name in the store")
                    })?;
                }
                // Of another platform, perhaps.
                Err(ImageError::Missing { .. }) => pull()?,
                other => return Ok(other?),
            },
            PullPolicy::Newer => {
                let asked = registries::pull_spec(&reference, platform.platform.clone(), &self.registry)
                    .and_then(|asked| Ok(pull::is_newer(store, &asked)?))
                    .and_then(|is_newer| if is_newer { pull() } else { Ok(()) });
                if let Err(error) = asked {
                    let Ok(image) = open() else { return Err(error) };
                    tracing::warn!("{error:#}: what is in the store is used");
                    return Ok(image);
                }
            }
        }
        Ok(open()?)
    }
}

/// Shows how far downloads are: a line for each layer that is done, and on a terminal a bar for all.
#[derive(Debug)]
struct Downloading {
    shown: Mutex<Shown>,
    is_terminal: bool,
    told: Told,
}

#[derive(Debug)]
struct Shown {
    start: Instant,
    last: Instant,
    has_bar: bool,
    /// Of each layer the bytes that are there, and all.
    layers: BTreeMap<Digest, (u64, u64)>,
}

impl Downloading {
    fn told(told: Told) -> Self {
        let now = Instant::now();
        let shown = Shown { start: now, last: now, has_bar: false, layers: BTreeMap::new() };
        Self { shown: Mutex::new(shown), is_terminal: std::io::stderr().is_terminal(), told }
    }

    fn interval(&self) -> Duration {
        if self.is_terminal { Duration::from_millis(100) } else { Duration::from_secs(5) }
    }
}

impl Pulling for Downloading {
    fn layers(&self, layers: &[Descriptor]) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.layers = layers.iter().map(|layer| (layer.digest, (0, layer.size))).collect();
    }

    fn layer(&self, digest: Digest, state: LayerState) {
        if self.told == Told::Nothing {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(layer) = shown.layers.get_mut(&digest) else { return };
        let done = match state {
            LayerState::Received(bytes) | LayerState::Elsewhere(bytes) => {
                layer.0 = bytes;
                None
            }
            LayerState::Known => Some("is there already"),
            LayerState::Complete => Some("done"),
        };
        if let Some(done) = done {
            layer.0 = layer.1;
            let (name, bytes) = (&digest.hex()[..SHORT], layer.1);
            shown.clear();
            shown.write(&format!("layer {name}: {bytes} bytes, {done}\n"));
        } else if shown.last.elapsed() >= self.interval() && shown.start.elapsed() >= progress::PATIENCE {
            shown.last = Instant::now();
            let done: u64 = shown.layers.values().map(|(done, _)| done).sum();
            let total: u64 = shown.layers.values().map(|(_, total)| total).sum();
            let line =
                progress::line("pulling", None, (done, total), shown.start.elapsed(), self.is_terminal);
            shown.clear();
            shown.has_bar = self.is_terminal;
            shown.write(&if self.is_terminal { line } else { line + "\n" });
        }
    }
}

impl Shown {
    /// Takes the bar away.
    fn clear(&mut self) {
        if std::mem::take(&mut self.has_bar) {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        // Nobody is hurt by a lost line of progress.
        std::io::stderr().write_all(text.as_bytes()).ok();
    }
}

impl Drop for Downloading {
    fn drop(&mut self) {
        self.shown.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
