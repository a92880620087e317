//! `RUN`: a container on what was built so far, whose changes become a layer.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, Write as _};
use std::path::Path;

use super::layer_tar::{Entry, LayerTar};
use super::{Builder, StepError};
use crate::container::running::Ready;
use crate::container::{Changes, ImageRecord, NewContainer, Owners, Purpose, changes, ending, running};
use crate::container::{Wishes, command_line};
use crate::fs::{Change, OwnerView};
use crate::fuse::Writes;
use crate::image::{Documents, Image};
use crate::launcher::{IdMaps, Plan, as_root_of};
use crate::layer::{LayerSource, TarSource};
use crate::model::{Digest, FileKind};
use crate::mount::{Layers, UpperDirs};
use crate::sys::atomic::TempFile;

/// An attribute of this machine, not of the image.
const SELINUX_LABEL: &[u8] = b"security.selinux";

impl Builder<'_> {
    /// Runs a command; gives its changes, if there are any, as a layer.
    pub(super) fn run(&mut self, command: Vec<String>) -> Result<Option<LayerSource>, StepError> {
        let stage = self.stage()?;
        let mut image = Image {
            name: "build".to_owned(),
            source: "build".to_owned(),
            config: stage.config.clone(),
            config_digest: Digest::from_bytes([0; 32]),
            layers: stage.layers.clone(),
            documents: Documents::default(),
        };
        let args = stage.args.iter().map(|(key, value)| format!("{key}={value}"));
        image.config.config.env = args.chain(stage.config.config.env.iter().cloned()).collect();
        let layers = self.layers()?;
        let held = self.containers.create(NewContainer {
            name: None,
            image: ImageRecord::of(&image),
            purpose: Purpose::Run,
            command: command.clone(),
            owners: Owners::Image,
            changes: Changes::Own,
            remove_at_end: false,
            run: None,
        })?;
        let id = held.id().to_string();
        let result = self.run_in(held, &image, layers, command);
        if let Err(error) = ending::remove(self.containers, &id, ending::How::default()) {
            tracing::warn!("the container of a build step stays behind: {error}");
        }
        result
    }

    fn run_in(
        &mut self,
        held: crate::container::Held,
        image: &Image,
        layers: Layers,
        command: Vec<String>,
    ) -> Result<Option<LayerSource>, StepError> {
        let wishes = Wishes { network: self.spec.network, ..Wishes::default() };
        let command = command.into_iter().map(OsString::from).collect();
        let id = held.id().to_string();
        let mount_point = held.dir().join("mnt");
        let plan = command_line::plan(&id, mount_point, command, &image.config.config, &wishes)
            .map_err(StepError::context(Path::new("/etc/hosts")))?;
        let tell = &mut *self.tell;
        let mut single_id = |reason: &str| tell(&format!("only one user id inside: {reason}"));
        let ready =
            Ready { held, layers: layers.clone(), writes: Writes::Through, plan: plan.clone(), users: None };
        let code = running::run(self.containers, ready, &mut single_id)?;
        if code != 0 {
            return Err(StepError::Failed(code));
        }
        // Nobody may mount it while its changes are read.
        let held = self.containers.hold(self.containers.find(&id)?)?;
        let Some(upper) = held.upper_dirs() else { return Ok(None) };
        self.keep(&layers, &upper, &plan)
    }

    /// Writes the changes down as a layer. Files of other ids are read by the root of those ids.
    fn keep(
        &self,
        layers: &Layers,
        upper: &UpperDirs,
        plan: &Plan,
    ) -> Result<Option<LayerSource>, StepError> {
        let mut temp = TempFile::create_in(self.store.blobs().dir()).map_err(StepError::Layer)?;
        let (mut answer, mut answer_there) = io::pipe().map_err(StepError::Layer)?;
        let file = temp.file();
        let mut work = || {
            if let Some(diff_id) = write_changes(layers.clone(), upper, file)? {
                answer_there.write_all(diff_id.as_bytes())?;
            }
            Ok(())
        };
        match &plan.id_maps {
            IdMaps::Identity => work(),
            maps => as_root_of(maps, work),
        }
        .map_err(StepError::Layer)?;
        drop(answer_there);
        let mut bytes = Vec::new();
        answer.read_to_end(&mut bytes).map_err(StepError::Layer)?;
        match <[u8; 32]>::try_from(bytes) {
            Ok(diff_id) => self.put_layer(temp.file(), Digest::from_bytes(diff_id)).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Puts a finished layer into the store.
    pub(super) fn put_layer(&self, file: &mut File, diff_id: Digest) -> Result<LayerSource, StepError> {
        file.rewind().map_err(StepError::Layer)?;
        let blobs = self.store.blobs();
        let (digest, _) = blobs.put_unnamed(file)?;
        Ok(LayerSource::Tar(TarSource::new(blobs.get(digest)?, Some(digest), diff_id)))
    }
}

/// The digest of the uncompressed layer; `None` when nothing changed.
fn write_changes(layers: Layers, upper: &UpperDirs, file: &mut File) -> io::Result<Option<Digest>> {
    let fs = layers.into_fs(Some(upper), OwnerView::Image).map_err(io::Error::other)?;
    let mut layer = LayerTar::new(BufWriter::new(file));
    let told = fs.changes(&mut |path, change| match change {
        Change::Removed => layer.whiteout(path),
        Change::Link(to, _) => layer.link(path, to),
        Change::Object(object) => {
            if object.metadata.kind == FileKind::Socket {
                tracing::warn!("/{}: a layer cannot hold sockets; left out", path.escape_ascii());
                return Ok(());
            }
            if object.before.is_none() && changes::is_the_launchers(path, &object.metadata) {
                return Ok(());
            }
            let mut xattrs = object.xattrs;
            xattrs.retain(|(name, _)| **name != *SELINUX_LABEL);
            let entry = Entry { metadata: object.metadata, xattrs: &xattrs, target: &object.target };
            layer.object(path, &entry, object.content)
        }
    });
    told.map_err(io::Error::other)?;
    if layer.entries() == 0 {
        return Ok(None);
    }
    let (diff_id, mut rest) = layer.finish()?;
    rest.flush()?;
    Ok(Some(diff_id))
}
