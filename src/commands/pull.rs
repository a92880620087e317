//! `layerfs pull`, and `--pull` of those who open images.

use anyhow::{bail, ensure};

use super::args::PlatformArg;
use super::options::pull::{PullArg, PullArgs, PullPolicy};
use super::progress::Told;
use super::registries::{self, Asking};
use super::transfers::Transfers;
use super::{complain, environment};
use crate::image::pull::{self, LayerState, PullSpec, Pulling};
use crate::image::{self, Image, ImageError, Reference, TargetPlatform};
use crate::model::Digest;
use crate::store::{Descriptor, Store};

/// More tags of one repository are not pulled by one command.
const TAGS_MAX: usize = 10_000;

/// Pulls images and prints the id of each.
pub(super) fn run(args: &PullArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let told = Told::unless(args.quiet);
    let platform = platform(args)?;
    let asking = Asking::new(&args.registry)?;
    super::each(&args.names, |name| {
        let name = registries::plain(name);
        let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        ensure!(!(args.all_tags && has_tag), "{name}: --all-tags takes a name without tag and digest");
        first(&asking.references(name)?, |reference| {
            let spec = asking.pull_spec(reference, platform.clone())?;
            if !args.all_tags {
                return Ok(one(&store, &spec, told)?.hex());
            }
            let tags = pull::tags(&store, &spec, TAGS_MAX)?;
            ensure!(!tags.is_empty(), "{name}: the registry has no tags of it");
            let mut ids = Vec::new();
            for tag in &tags {
                let spec = PullSpec { reference: reference.with_tag(tag)?, ..spec.clone() };
                ids.push(one(&store, &spec, told)?.hex());
            }
            Ok(ids.join("\n"))
        })
    })
}

/// What the first of several names gives of which it gives something; else why none does.
pub(super) fn first<T>(
    references: &[Reference],
    mut pull: impl FnMut(&Reference) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut failures = Vec::new();
    for reference in references {
        match pull(reference) {
            Err(error) if references.len() > 1 => failures.push(format!("{reference}: {error:#}")),
            result => return result,
        }
    }
    bail!("none of the registries that are searched has it: {}", failures.join("; "))
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
fn one(store: &Store, spec: &PullSpec, told: Told) -> anyhow::Result<Digest> {
    let say = |line: String| {
        if told == Told::Progress {
            complain(&line);
        }
    };
    say(format!("Trying to pull {}...", spec.reference));
    let progress = Transfers::new("pulling", told);
    let pulled = pull::pull(store, spec, &progress)?;
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
        self.open_by(spec, platform, store, told, &|_| Ok(None))
    }

    /// The same; what has to be pulled may be had by `instead`, if that gives something.
    pub(super) fn open_by(
        &self,
        spec: &str,
        platform: &PlatformArg,
        store: &Store,
        told: Told,
        instead: &dyn Fn(&PullSpec) -> anyhow::Result<Option<Image>>,
    ) -> anyhow::Result<Image> {
        let open = |name: &str| image::open_sought(name, store, &platform.sought(told));
        let here = open(spec);
        let is_enough = match (self.pull, &here) {
            (PullPolicy::Never | PullPolicy::Missing, Ok(_)) => true,
            (PullPolicy::Always | PullPolicy::Newer, _) => false,
            // All but the first: there, but for another platform.
            (
                _,
                Err(ImageError::NotFound { .. } | ImageError::Missing { .. } | ImageError::Platform { .. }),
            ) => false,
            (_, Err(_)) => true,
        };
        // What is not a name cannot be pulled.
        if is_enough || image::named(spec).is_none() {
            return Ok(here?);
        }
        let asking = Asking::new(&self.registry)?;
        let references = asking.references(registries::plain(spec))?;
        // A short name may have been pulled as what it stands for.
        let known = || references.iter().find_map(|reference| open(&reference.to_string()).ok());
        match self.pull {
            PullPolicy::Never => return known().map_or_else(|| Ok(here?), Ok),
            PullPolicy::Missing => {
                if let Some(image) = known() {
                    return Ok(image);
                }
            }
            PullPolicy::Always | PullPolicy::Newer => {}
        }
        let pulled = first(&references, |reference| {
            let asked = asking.pull_spec(reference, platform.platform.clone())?;
            let is_whole = self.pull == PullPolicy::Newer && open(&reference.to_string()).is_ok();
            if !is_whole || pull::is_newer(store, &asked)? {
                if let Some(image) = instead(&asked)? {
                    return Ok(image);
                }
                one(store, &asked, told)?;
            }
            Ok(open(&reference.to_string())?)
        });
        let Err(error) = pulled else { return pulled };
        if self.pull == PullPolicy::Newer
            && let Some(image) = known()
        {
            tracing::warn!("{error:#}: what is in the store is used");
            return Ok(image);
        }
        let is_unknown = matches!(here, Err(ImageError::NotFound { .. }));
        Err(if is_unknown {
            error.context(format!("{spec}: no such file, and no image of that name in the store"))
        } else {
            error
        })
    }
}

impl Pulling for Transfers {
    fn layers(&self, layers: &[Descriptor]) {
        self.expect(layers.iter().map(|layer| (layer.digest, layer.size)));
    }

    fn layer(&self, digest: Digest, state: LayerState) {
        match state {
            LayerState::Received(bytes) | LayerState::Elsewhere(bytes) => self.moved(digest, bytes),
            LayerState::Known => self.settled(digest, Some("Already exists")),
            LayerState::Complete => self.settled(digest, Some("Pull complete")),
        }
    }
}
