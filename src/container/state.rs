//! What is written down about a container: `config.json`, in which only the name changes and what `update` changes, and
//! `state.json`, which does.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::wishes::Wishes;
use super::{ContainerId, Moment, ProcessId, moment};
use crate::image::Image;
use crate::layer::LayerSource;
use crate::model::Digest;
use crate::model::image_config::ProcessConfig;

/// What a container is made of. Enough to mount it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Moment,
    /// The image below it.
    pub image: ImageRecord,
    /// What it is for.
    pub purpose: Purpose,
    /// Program and arguments; empty for a mount.
    pub command: Vec<String>,
    /// Whose ids are shown.
    pub owners: Owners,
    /// Where changes are.
    pub changes: Changes,
    /// Goes away when it ends.
    pub remove_at_end: bool,
    /// How it is run; a mount is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Wishes>,
}

/// Which image, exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// What people call it.
    pub name: String,
    /// What [`crate::image::open`] takes to find it again.
    pub source: String,
    /// Its config. When `source` leads to another one, it is not the same image.
    pub config_digest: Digest,
    /// Its layers, base first.
    pub layers: Vec<LayerRecord>,
    /// How the image wants to be run.
    pub process: ProcessConfig,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerRecord {
    /// A tar, by the digest of its uncompressed bytes.
    Tar(Digest),
    /// A plain directory.
    Directory(PathBuf),
}

/// Where a container's changes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Changes {
    /// In its own directory.
    Own,
    /// In `upper/` and `work/` of a directory of the user's.
    In(PathBuf),
    /// Nowhere: it is read-only.
    Refused,
}

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// `layerfs run`
    Run,
    /// `layerfs mount`
    Mount,
}

/// Whose ids a mount shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owners {
    /// Everything belongs to whoever mounted it.
    Caller,
    /// The image's own.
    Image,
}

/// How far it has come, as its supervisor or mount server wrote it down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum State {
    /// Nothing has run yet.
    Created,
    /// Its process runs.
    Running {
        /// The container's first process, as its supervisor sees it.
        process: ProcessId,
        /// Since when.
        started: Moment,
        /// The directory of its control group, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cgroup: Option<PathBuf>,
    },
    /// It is mounted.
    Mounted {
        /// Who serves it.
        server: ProcessId,
        /// Where.
        mountpoint: PathBuf,
        /// Since when.
        started: Moment,
    },
    /// Its program ended, and runs again soon.
    Restarting {
        /// Who waits for that.
        waits: ProcessId,
        /// As a shell has it.
        exit_code: u8,
        /// From when it ran.
        started: Moment,
        /// Until when.
        finished: Moment,
    },
    /// It ended.
    Exited {
        /// As a shell has it: 128 + n after signal n.
        exit_code: u8,
        /// From when.
        started: Moment,
        /// Until when.
        finished: Moment,
        /// Whether a process of it was killed because its memory did not suffice.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        oom_killed: bool,
    },
}

/// What is true of it now: what was written down, and whether who wrote it still holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What was written down.
    pub state: State,
    /// Whether a supervisor, a mount server or someone who removes it holds its lock.
    pub held: bool,
}

/// Labels, where those of the image give way to the user's own.
pub(super) fn labels_over<'a>(
    of_image: impl IntoIterator<Item = (&'a String, &'a String)>,
    own: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> BTreeMap<&'a str, &'a str> {
    of_image.into_iter().chain(own).map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

impl Config {
    /// The image's labels, and the user's over them.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<&str, &str> {
        let own = self.run.iter().flat_map(|wishes| &wishes.labels);
        labels_over(&self.image.process.labels, own)
    }
}

impl State {
    /// Whether it ends by itself when nobody holds the container.
    #[must_use]
    pub fn is_live(&self) -> bool {
        match self {
            Self::Running { .. } | Self::Mounted { .. } | Self::Restarting { .. } => true,
            Self::Created | Self::Exited { .. } => false,
        }
    }
}

impl Status {
    /// Its supervisor or mount server died without saying so (kill -9, power cut).
    #[must_use]
    pub fn is_unclean(&self) -> bool {
        !self.held && matches!(self.state, State::Running { .. } | State::Mounted { .. })
    }

    /// Whether a process runs in it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.held && matches!(self.state, State::Running { .. })
    }

    /// Whether it is about to run again by itself.
    #[must_use]
    pub fn is_restarting(&self) -> bool {
        self.held && matches!(self.state, State::Restarting { .. })
    }

    /// Whether it can be started or mounted again.
    #[must_use]
    pub fn can_start(&self) -> bool {
        !self.held
    }

    /// Whether it can be removed.
    #[must_use]
    pub fn can_remove(&self) -> bool {
        !self.held
    }

    /// Whether there is something to stop or unmount.
    #[must_use]
    pub fn can_stop(&self) -> bool {
        let lives = matches!(self.state, State::Running { .. } | State::Mounted { .. });
        self.held && lives || self.is_restarting()
    }

    /// One word, as `docker inspect` and `--filter status=` have it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.state {
            State::Created => "created",
            State::Running { .. } if self.is_paused() => "paused",
            State::Running { .. } if self.held => "running",
            State::Mounted { .. } if self.held => "mounted",
            State::Restarting { .. } if self.held => "restarting",
            State::Running { .. }
            | State::Mounted { .. }
            | State::Restarting { .. }
            | State::Exited { .. } => "exited",
        }
    }

    /// The column STATUS of `ps`.
    #[must_use]
    pub fn text(&self, now: Moment) -> String {
        match &self.state {
            State::Created => "Created".to_owned(),
            State::Running { .. } | State::Mounted { .. } if !self.held => "Exited (unclean)".to_owned(),
            State::Running { started, .. } => {
                let paused = if self.is_paused() { " (Paused)" } else { "" };
                format!("Up {}{paused}", lower(started.age(now)))
            }
            State::Mounted { mountpoint, .. } => format!("Mounted on {}", mountpoint.display()),
            State::Restarting { exit_code, finished, .. } if self.held => {
                format!("Restarting ({exit_code}) {} ago", lower(finished.age(now)))
            }
            State::Restarting { exit_code, finished, .. } | State::Exited { exit_code, finished, .. } => {
                format!("Exited ({exit_code}) {} ago", lower(finished.age(now)))
            }
        }
    }
}

/// Docker begins these with a capital letter only at the start of a cell.
fn lower(age: Duration) -> String {
    let words = moment::in_words(age);
    let mut letters = words.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

impl ImageRecord {
    /// What to remember of an image.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let layer = |source: &LayerSource| match source {
            LayerSource::Tar(tar) => LayerRecord::Tar(tar.diff_id),
            LayerSource::Directory(path) => LayerRecord::Directory(path.clone()),
        };
        Self {
            name: image.name.clone(),
            source: image.source.clone(),
            config_digest: image.config_digest,
            layers: image.layers.iter().map(layer).collect(),
            process: image.config.config.clone(),
        }
    }

    /// The digest in [`Self::source`]: what a collector of the store must keep for this container.
    #[must_use]
    pub fn pinned(&self) -> Option<Digest> {
        self.source.rsplit_once(":@")?.1.parse().ok()
    }

    /// Whether an opened image is the one that was remembered: the same config and the same layers.
    #[must_use]
    pub fn is(&self, image: &Image) -> bool {
        let opened = Self::of(image);
        self.config_digest == opened.config_digest && self.layers == opened.layers
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "run",
            Self::Mount => "mount",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::layer::TarSource;
    use crate::sys::file_range::FileRange;

    fn all() -> [State; 5] {
        let started = Moment::from_seconds(1000);
        let process = ProcessId { pid: 7, start_ticks: 8 };
        [
            State::Created,
            State::Running { process, started, cgroup: None },
            State::Mounted { server: process, mountpoint: "/mnt".into(), started },
            State::Restarting { waits: process, exit_code: 1, started, finished: Moment::from_seconds(1990) },
            State::Exited {
                exit_code: 137,
                started,
                finished: Moment::from_seconds(1700),
                oom_killed: false,
            },
        ]
    }

    #[test]
    fn what_ps_says() {
        let now = Moment::from_seconds(2000);
        let texts = |held| all().map(|state| Status { state, held }.text(now));
        assert_eq!(
            texts(true),
            [
                "Created",
                "Up 16 minutes",
                "Mounted on /mnt",
                "Restarting (1) 10 seconds ago",
                "Exited (137) 5 minutes ago"
            ]
        );
        assert_eq!(
            texts(false),
            [
                "Created",
                "Exited (unclean)",
                "Exited (unclean)",
                "Exited (1) 10 seconds ago",
                "Exited (137) 5 minutes ago"
            ]
        );
        let now = Moment::from_seconds(1000);
        assert_eq!(Status { state: all()[1].clone(), held: true }.text(now), "Up less than a second");
    }

    #[test]
    fn which_image() {
        let digest = Digest::from_bytes([3; 32]);
        let source = TarSource::new(FileRange::open(Path::new("/proc/self/exe")).unwrap(), None, digest);
        let image = Image {
            name: "a:1".into(),
            source: format!("oci:/x:@{digest}"),
            config: crate::model::ImageConfig::default(),
            config_digest: digest,
            layers: vec![LayerSource::Tar(source), LayerSource::Directory("/x".into())],
            documents: crate::image::Documents::default(),
        };
        let record = ImageRecord::of(&image);
        assert_eq!(record.pinned(), Some(digest));
        assert!(record.is(&Image { name: "renamed".into(), ..image.clone() }));
        assert!(!record.is(&Image { config_digest: Digest::from_bytes([4; 32]), ..image.clone() }));
        assert!(!record.is(&Image { layers: Vec::new(), ..image }));
        assert_eq!(ImageRecord { source: "dir:/x".into(), ..record }.pinned(), None);
    }

    #[test]
    fn what_may_be_done() {
        for held in [true, false] {
            for state in all() {
                let active = matches!(state, State::Running { .. } | State::Mounted { .. });
                let restarting = matches!(state, State::Restarting { .. });
                let status = Status { state, held };
                assert_eq!((status.can_remove(), status.can_start()), (!held, !held));
                assert_eq!(
                    (status.can_stop(), status.is_unclean()),
                    (held && (active || restarting), !held && active)
                );
            }
        }
    }

    #[test]
    fn on_disk() {
        let text = serde_json::to_string(&all()[1]).unwrap();
        let wanted = r#"{"status":"running","process":{"pid":7,"start_ticks":8},"started":"1970-01-01T00:16:40.000000000Z"}"#;
        assert_eq!(text, wanted);
        for state in all() {
            assert_eq!(
                serde_json::from_str::<State>(&serde_json::to_string(&state).unwrap()).unwrap(),
                state
            );
        }
    }
}
