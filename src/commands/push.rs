//! `layerfs push`

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::args::PlatformArg;
use super::options::registry::RegistryArgs;
use super::progress::Told;
use super::push_index::{self, IndexArgs};
use super::registries::{self, Asking};
use super::transfers::Transfers;
use super::{complain, environment};
use crate::image::push::{self, Parcel, Piece, Pushed, Pusher, Pushing, Settled};
use crate::image::{Image, Reference};
use crate::registry::Patience;
use crate::store::Store;
use crate::sys::atomic;

/// `layerfs push`
#[derive(Clone, Debug, Args)]
#[command(after_help = PUSH_HELP)]
pub struct PushArgs {
    /// Print only errors
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// Push all tags that the store has of IMAGE
    #[arg(long, short = 'a', conflicts_with_all = ["destination", "digestfile"])]
    pub all_tags: bool,
    /// Write the digest of what was pushed into a file
    #[arg(long, value_name = "FILE")]
    pub digestfile: Option<PathBuf>,
    /// What goes with it
    #[command(flatten)]
    pub index: IndexArgs,
    /// How the registry is asked
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Which of several; without it all of them, if all are in the store
    #[command(flatten)]
    pub platform: PlatformArg,
    /// Options of podman that cannot be followed
    #[command(flatten)]
    pub refused: RefusedArgs,
    /// The image
    pub image: String,
    /// Under which name: [docker://]HOST/NAME[:TAG] (default: the image's own)
    pub destination: Option<String>,
}

/// Told by name, rather than passed over.
#[derive(Clone, Debug, Args)]
pub struct RefusedArgs {
    #[arg(long, hide = true)]
    remove_signatures: bool,
    #[arg(long, hide = true, value_name = "KEY")]
    sign_by: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    sign_by_sigstore: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    sign_by_sigstore_private_key: Option<String>,
    #[arg(long, hide = true, value_name = "KEY")]
    encryption_key: Option<String>,
    #[arg(long, short = 'f', hide = true)]
    format: Option<String>,
    #[arg(long, hide = true)]
    compression_format: Option<String>,
    #[arg(long, hide = true)]
    compression_level: Option<String>,
    #[arg(long, hide = true)]
    compress: bool,
    #[arg(long, hide = true)]
    force_compression: bool,
}

const PUSH_HELP: &str = "\
Manifest, config and layers are sent as they lie, so the image has the same digest in every registry. An archive of \
`docker save` gets an OCI manifest; its layers, which are plain tars, are sent as such. What the registry has is not sent, \
and what it has in another repository that layerfs knows of is taken over from there.

IMAGE is a name in the store, or a path as for `layerfs run`; a path needs a DESTINATION.";

/// Pushes an image, or all of a name.
pub(super) fn run(args: &PushArgs) -> anyhow::Result<u8> {
    args.refused.check()?;
    let store = environment::store()?;
    let told = Told::unless(args.quiet);
    if args.all_tags {
        return all_tags(args, &store, told);
    }
    let image = opened(args, &args.image, &store, told)?;
    let target = match &args.destination {
        Some(destination) => target_of(destination)?,
        None => own_name(&args.image, &image, &store)?,
    };
    let pushed = all(args, &store, &[(image, target)], told)?;
    if let (Some(path), [pushed]) = (&args.digestfile, &pushed[..]) {
        let text = pushed.digest.to_string();
        atomic::write(path, text.as_bytes(), 0o644)
            .with_context(|| format!("--digestfile {}", path.display()))?;
    }
    Ok(0)
}

impl RefusedArgs {
    fn check(&self) -> anyhow::Result<()> {
        let as_it_lies = "what is pushed is what the store has, byte by byte, so that its digest stays; \
                          `skopeo copy` converts images";
        let no_signatures = "layerfs makes and keeps no signatures";
        for (is_given, option, reason) in [
            (
                self.remove_signatures,
                "--remove-signatures",
                "none are kept, so none are pushed: leave it out",
            ),
            (self.sign_by.is_some(), "--sign-by", no_signatures),
            (self.sign_by_sigstore.is_some(), "--sign-by-sigstore", no_signatures),
            (self.sign_by_sigstore_private_key.is_some(), "--sign-by-sigstore-private-key", no_signatures),
            (self.encryption_key.is_some(), "--encryption-key", "layerfs does not encrypt layers"),
            (self.format.is_some(), "--format", as_it_lies),
            (self.compression_format.is_some(), "--compression-format", as_it_lies),
            (self.compression_level.is_some(), "--compression-level", as_it_lies),
            (self.compress, "--compress", as_it_lies),
            (self.force_compression, "--force-compression", as_it_lies),
        ] {
            ensure!(!is_given, "{option}: {reason}");
        }
        Ok(())
    }
}

fn opened(args: &PushArgs, spec: &str, store: &Store, told: Told) -> anyhow::Result<Image> {
    let mut image = args.platform.open(spec, store, told)?;
    if args.platform.platform.is_some() {
        // One of several was asked for.
        image.documents.index = None;
    }
    Ok(image)
}

fn target_of(destination: &str) -> anyhow::Result<Reference> {
    let name = registries::plain(destination);
    for transport in
        ["oci:", "oci-archive:", "docker-archive:", "dir:", "containers-storage:", "docker-daemon:"]
    {
        ensure!(
            !name.starts_with(transport),
            "{destination}: only registries are pushed to; `skopeo copy` writes {transport}"
        );
    }
    let target: Reference = name.parse().with_context(|| format!("destination {destination:?}"))?;
    ensure!(
        target.digest().is_none(),
        "destination {destination}: an image is pushed to a tag, not to a digest"
    );
    Ok(target)
}

/// Where an image goes of which nothing else was said.
fn own_name(spec: &str, image: &Image, store: &Store) -> anyhow::Result<Reference> {
    // What was found by its id or digest may have one name as well.
    let names = image.documents.names.iter();
    let mut names: Vec<Reference> = names.filter_map(|name| name.parse().ok()).collect();
    let named: Option<Reference> = image.name.parse().ok();
    let own = named.filter(|name| names.contains(name));
    names.dedup();
    // What is called something in an archive or a layout may be called so there alone.
    let own = match (own, &names[..]) {
        _ if !push::is_stored(image, store) => None,
        (Some(own), _) => Some(own),
        (None, [one]) => Some(one.clone()),
        _ => None,
    };
    let Some(own) = own else {
        bail!("{spec}: where to? Give a DESTINATION such as registry.example.org/name:tag");
    };
    ensure!(own.digest().is_none(), "{spec}: an image is pushed to a tag: give a DESTINATION");
    Ok(own)
}

fn all_tags(args: &PushArgs, store: &Store, told: Told) -> anyhow::Result<u8> {
    let spec = &args.image;
    let has_tag = spec.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    ensure!(!has_tag, "{spec}: --all-tags takes a name without tag and digest");
    let wanted: Reference = spec.parse().with_context(|| format!("{spec:?}"))?;
    let mut images = Vec::new();
    for (name, _) in store.refs().list()? {
        let Ok(known) = name.parse::<Reference>() else { continue };
        if known.host() == wanted.host() && known.path() == wanted.path() && known.digest().is_none() {
            images.push((opened(args, &name, store, told)?, known));
        }
    }
    ensure!(!images.is_empty(), "{spec}: the store has no image of that name");
    all(args, store, &images, told)?;
    Ok(0)
}

/// All of one repository, one after the other.
fn all(
    args: &PushArgs,
    store: &Store,
    images: &[(Image, Reference)],
    told: Told,
) -> anyhow::Result<Vec<Pushed>> {
    let parcels = images.iter().map(|(image, _)| Parcel::of(image, store)).collect::<Result<Vec<_>, _>>()?;
    let Some((_, first)) = images.first() else { return Ok(Vec::new()) };
    let attachments =
        args.index.attachments(images.iter().map(|(image, _)| image).zip(&parcels), store, told)?;
    // Mirrors come before the registry; nothing is pushed to them.
    let endpoints = Asking::new(&args.registry)?.endpoints(first)?;
    let endpoint = endpoints.last().context("no registry to push to")?;
    let place = format!("{}/{}", first.host(), first.path());
    if told == Told::Progress {
        complain(&format!("The push refers to repository [{place}]"));
    }
    let progress = Transfers::new("pushing", told);
    progress.expect(parcels.iter().flat_map(Parcel::pieces).map(|piece| (piece.digest, piece.size)));
    let mut pusher = Pusher::open(store, endpoint, Patience::default(), &progress)?;
    let mut all = Vec::new();
    for ((_, target), parcel) in images.iter().zip(&parcels) {
        let tag = target.tag().unwrap_or("latest");
        let pushed = pusher.push(parcel, tag)?;
        progress.clear();
        if told == Told::Progress {
            super::print(&format!("{tag}: digest: {} size: {}\n", pushed.digest, pushed.size))?;
        }
        push_index::attach(&attachments, &mut pusher, parcel, told)?;
        all.push(pushed);
    }
    Ok(all)
}

impl Pushing for Transfers {
    fn sent(&self, piece: &Piece, done: u64) {
        self.moved(piece.digest, done);
    }

    fn settled(&self, piece: &Piece, how: &Settled) {
        let what = match how {
            Settled::Existed => "Layer already exists".to_owned(),
            Settled::Mounted(from) => format!("Mounted from {from}"),
            Settled::Pushed => "Pushed".to_owned(),
        };
        Self::settled(self, piece.digest, (piece.what == "layer").then_some(&what));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::commands::args::{Cli, Command};

    #[test]
    fn destinations() {
        assert_eq!(target_of("docker://h.x/a:1").unwrap().to_string(), "h.x/a:1");
        assert_eq!(target_of("a").unwrap().to_string(), "docker.io/library/a:latest");
        for (wrong, word) in
            [("oci:/x:1", "skopeo"), ("A", "destination"), (&format!("a@sha256:{}", "0".repeat(64)), "tag")]
        {
            let error = format!("{:#}", target_of(wrong).unwrap_err());
            assert!(error.contains(word) && error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        for words in [
            &["--remove-signatures"][..],
            &["--sign-by", "x"],
            &["--encryption-key", "x"],
            &["--format", "v2s2"],
            &["--compression-format", "zstd"],
            &["--force-compression"],
        ] {
            let line = [&["layerfs", "push"], words, &["a"]].concat();
            let Command::Push(args) = Cli::try_parse_from(line).unwrap().command else { panic!("no push") };
            let error = args.refused.check().unwrap_err().to_string();
            assert!(error.starts_with(words[0]), "{error}");
        }
    }
}
