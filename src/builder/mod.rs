//! Row 10: from a Dockerfile to an image in the store: one stage, no build cache.
//!
//! An instruction that changes files makes one layer: `RUN` in a container, whose changes are read from its upper;
//! `COPY` straight from the caller's files. Everything is understood before anything is done, and what is not supported
//! (further stages, `COPY --from`, `RUN --mount`, here-documents, downloads, `ONBUILD`) is refused by name.

mod context;
mod copy;
mod dockerfile;
mod error;
mod image_writer;
mod layer_tar;
mod patterns;
mod place;
mod run_step;
mod stage;
mod steps;
mod words;

use std::collections::BTreeMap;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

pub use dockerfile::DockerfileError;
pub use error::{BuildError, StepError};

use context::Context;
use dockerfile::Line;
use layer_tar::LayerTar;
use stage::Stage;
use steps::Step;

use crate::container::{Containers, Moment};
use crate::fs::{Fs, OwnerView};
use crate::image::{self, Image, Reference};
use crate::launcher::Network;
use crate::layer::LayerSource;
use crate::model::{Digest, ImageConfig, Timestamp};
use crate::mount::{Caches, Layers, MountSpec, Progress};
use crate::store::Store;
use crate::sys::atomic::TempFile;

/// What is to be built.
#[derive(Clone, Debug)]
pub struct BuildSpec {
    /// The directory that `COPY` copies from.
    pub context: PathBuf,
    /// The Dockerfile.
    pub dockerfile: PathBuf,
    /// The image's name.
    pub name: Option<String>,
    /// Values for `ARG`.
    pub args: BTreeMap<String, String>,
    /// Network of `RUN`.
    pub network: Network,
}

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// The image's id.
    pub config_digest: Digest,
    /// What its name leads to.
    pub manifest_digest: Digest,
}

/// Hears what is being done.
pub type Tell<'a> = &'a mut dyn FnMut(&str);

/// Opens the image of a `FROM`, wherever it comes from.
pub type Bases<'a> = &'a dyn Fn(&str) -> Result<Image, BaseError>;

/// Why there is none.
pub type BaseError = Box<dyn std::error::Error + Send + Sync>;

/// A build under way.
struct Builder<'a> {
    store: &'a Store,
    containers: &'a Containers,
    spec: &'a BuildSpec,
    progress: &'a dyn Progress,
    bases: Bases<'a>,
    tell: Tell<'a>,
    context: Context,
    escape: char,
    /// What `ARG` says before `FROM`.
    global_args: BTreeMap<String, String>,
    stage: Option<Stage>,
}

/// Builds an image. The calling process must have one thread.
///
/// # Errors
/// [`BuildError`], with the line of the Dockerfile; the store then has nothing new but blobs that no name leads to.
pub fn build(
    store: &Store,
    containers: &Containers,
    spec: &BuildSpec,
    progress: &dyn Progress,
    bases: Bases<'_>,
    tell: Tell<'_>,
) -> Result<Built, BuildError> {
    let name = spec.name.as_deref().map(complete_name).transpose()?;
    let read = |path: &PathBuf, source| BuildError::Read { path: path.clone(), source };
    let text = std::fs::read_to_string(&spec.dockerfile).map_err(|error| read(&spec.dockerfile, error))?;
    let understood = understand(&text);
    let wrong = |source| BuildError::Dockerfile { path: spec.dockerfile.clone(), source };
    let (steps, escape) = understood.map_err(wrong)?;
    let context = Context::open(&spec.context).map_err(|error| read(&spec.context, error))?;
    // Nothing that was built is collected before it has its name.
    let _lock = store.lock()?;
    let global_args = BTreeMap::new();
    let mut builder =
        Builder { store, containers, spec, progress, bases, tell, context, escape, global_args, stage: None };
    let total = steps.len();
    for (number, (line, step)) in (1..).zip(&steps) {
        let text = format!("{} {}", line.keyword, line.rest);
        (builder.tell)(&format!("STEP {number}/{total}: {text}"));
        let failed = |error| {
            let source = Box::new(error);
            BuildError::Step { line: line.number, text: text.clone(), source }
        };
        builder.carry_out(step, &text).map_err(failed)?;
    }
    builder.say_unused_args(&steps);
    let Some(mut stage) = builder.stage else {
        return Err(wrong(DockerfileError { line: 1, reason: "no FROM".to_owned() }));
    };
    stage.config.other.insert("created".to_owned(), serde_json::json!(Moment::now().to_string()));
    stage.config.rootfs.other.insert("type".to_owned(), serde_json::json!("layers"));
    image_writer::write(store, &stage.config, &stage.layers, name.as_deref())
}

/// The name with its tag, as people and other tools write it.
fn complete_name(name: &str) -> Result<String, BuildError> {
    match name.parse::<Reference>() {
        Ok(reference) => Ok(reference.familiar()),
        Err(source) => Err(BuildError::Name { name: name.to_owned(), source }),
    }
}

/// All instructions of a Dockerfile, their order checked.
fn understand(text: &str) -> Result<(Vec<(Line, Step)>, char), DockerfileError> {
    let (lines, escape) = dockerfile::lines(text)?;
    let mut steps = Vec::with_capacity(lines.len());
    let mut begun = false;
    for line in lines {
        let step = steps::step(&line, escape)?;
        let wrong = |reason: &str| DockerfileError { line: line.number, reason: reason.to_owned() };
        match &step {
            Step::From(_) if begun => {
                return Err(wrong("FROM again: builds of several stages are not supported"));
            }
            Step::From(_) => begun = true,
            Step::Arg(_) => {}
            _ if !begun => return Err(wrong("FROM must come first")),
            _ => {}
        }
        steps.push((line, step));
    }
    if begun { Ok((steps, escape)) } else { Err(DockerfileError { line: 1, reason: "no FROM".to_owned() }) }
}

impl Builder<'_> {
    fn carry_out(&mut self, step: &Step, text: &str) -> Result<(), StepError> {
        match step {
            Step::From(image) => return self.from(image),
            Step::Arg(args) => self.declare(args)?,
            _ => {}
        }
        let Some(stage) = &mut self.stage else { return Ok(()) };
        let layer = match stage.configure(step)? {
            Some(Step::Run(form)) => {
                let command = stage.command(form);
                if command.is_empty() {
                    return Err(StepError::Asked("no command".to_owned()));
                }
                self.run(command)?
            }
            Some(Step::Copy(copy)) => {
                let mut copy = copy.clone();
                for word in copy.sources.iter_mut().chain(&mut copy.chown).chain(&mut copy.chmod) {
                    *word = stage.expand(word)?;
                }
                copy.destination = stage.expand(&copy.destination)?;
                let workdir = stage.workdir().to_owned();
                let now = now();
                self.write_layer(|fs, context, layer| copy::layer(fs, context, &copy, &workdir, now, layer))?
            }
            Some(Step::Workdir(dir)) => {
                let dir = stage.enter(dir)?;
                self.write_layer(|fs, _, layer| copy::make_dirs(fs, &dir, now(), layer))?
            }
            _ => None,
        };
        self.stage()?.remember(text, layer);
        Ok(())
    }

    fn from(&mut self, image: &str) -> Result<(), StepError> {
        let args = &self.global_args;
        let name = words::expand(image, self.escape, &|name| args.get(name).cloned())?;
        let (config, layers) = if name == "scratch" {
            let architecture = image::host_architecture().to_owned();
            (ImageConfig { architecture, os: "linux".to_owned(), ..ImageConfig::default() }, Vec::new())
        } else {
            let base = (self.bases)(&name).map_err(StepError::Base)?;
            (base.config, base.layers)
        };
        if layers.iter().any(|layer| matches!(layer, LayerSource::Directory(_))) {
            return Err(format!("{name}: a plain directory has no layers to build on: use an image").into());
        }
        let triggers = config.config.other.get("OnBuild").and_then(serde_json::Value::as_array);
        if triggers.is_some_and(|triggers| !triggers.is_empty()) {
            return Err(format!("{name}: has ONBUILD instructions, which are not supported").into());
        }
        self.stage = Some(Stage::new(config, layers, self.escape));
        Ok(())
    }

    fn declare(&mut self, args: &[(String, Option<String>)]) -> Result<(), StepError> {
        for (name, default) in args {
            let default = match (default, &self.stage) {
                (None, _) => self.global_args.get(name).cloned(),
                (Some(text), Some(stage)) => Some(stage.expand(text)?),
                (Some(text), None) => {
                    let known = &self.global_args;
                    Some(words::expand(text, self.escape, &|name| known.get(name).cloned())?)
                }
            };
            let value = self.spec.args.get(name).cloned().or(default);
            let into = self.stage.as_mut().map_or(&mut self.global_args, |stage| &mut stage.args);
            into.extend(value.map(|value| (name.clone(), value)));
        }
        Ok(())
    }

    fn say_unused_args(&mut self, steps: &[(Line, Step)]) {
        let declares = |step: &Step, name: &String| match step {
            Step::Arg(args) => args.iter().any(|(declared, _)| declared == name),
            _ => false,
        };
        for name in self.spec.args.keys() {
            if !steps.iter().any(|(_, step)| declares(step, name)) {
                (self.tell)(&format!("warning: --build-arg {name}: no ARG {name} in the Dockerfile"));
            }
        }
    }

    fn stage(&mut self) -> Result<&mut Stage, StepError> {
        self.stage.as_mut().ok_or_else(|| StepError::Asked("FROM must come first".to_owned()))
    }

    /// The layers of what was built so far.
    fn layers(&mut self) -> Result<Layers, StepError> {
        let layers = self.stage()?.layers.clone();
        let (index_dir, caches) = (self.store.index_dir(), Caches::default());
        Ok(MountSpec { layers, index_dir, caches }.layers(self.progress)?)
    }

    /// Makes a layer without running anything; `None` when nothing was written.
    fn write_layer(
        &mut self,
        write: impl FnOnce(&Fs, &Context, &mut LayerTar<BufWriter<&mut std::fs::File>>) -> Result<(), StepError>,
    ) -> Result<Option<LayerSource>, StepError> {
        let fs = self.layers()?.into_fs(None, OwnerView::Image)?;
        let mut temp = TempFile::create_in(self.store.blobs().dir()).map_err(StepError::Layer)?;
        let mut layer = LayerTar::new(BufWriter::new(temp.file()));
        write(&fs, &self.context, &mut layer)?;
        if layer.entries() == 0 {
            return Ok(None);
        }
        let (diff_id, mut rest) = layer.finish().map_err(StepError::Layer)?;
        rest.flush().map_err(StepError::Layer)?;
        drop(rest);
        self.put_layer(temp.file(), diff_id).map(Some)
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { secs: i64::try_from(since.as_secs()).unwrap_or_default(), nanos: since.subsec_nanos() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_checked() {
        let error = |text| understand(text).unwrap_err().to_string();
        assert_eq!(error("RUN x\nFROM y"), "line 1: FROM must come first");
        assert!(error("FROM a\nRUN x\nFROM b").starts_with("line 3: FROM again"));
        assert_eq!(error("# nothing\n"), "line 1: no FROM");
        assert!(understand("ARG A=1\nFROM a$A AS b\n").is_ok());
    }
}
