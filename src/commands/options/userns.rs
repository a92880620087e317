//! Which ids a container has.

use std::io;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::container::own_ids::{self, Claim, Known};
use crate::container::{Containers, Wishes};
use crate::image::Image;
use crate::launcher::{IdMap, OwnIds, UserNamespace};
use crate::look;
use crate::mount::Layers;

/// Which ids a container has
#[derive(Clone, Debug, Args)]
pub struct UsernsArgs {
    /// Ids inside: host (root's own; else you are 0), keep-id[:uid=N,gid=N] (you are the same inside, or N), nomap (all but
    /// yours), auto[:size=N] (no other container's)
    #[arg(long, value_name = "MODE", conflicts_with_all = ["uidmap", "gidmap", "subuidname", "subgidname"])]
    pub userns: Option<String>,
    /// SIZE users from INSIDE on are those from FROM on: the host's for root, else 0 is you and your ranges follow from 1 on
    #[arg(long, value_name = "INSIDE:FROM[:SIZE]", conflicts_with_all = ["subuidname", "subgidname"])]
    pub uidmap: Vec<String>,
    /// The same of groups (default: as --uidmap)
    #[arg(long, value_name = "INSIDE:FROM[:SIZE]", conflicts_with_all = ["subuidname", "subgidname"])]
    pub gidmap: Vec<String>,
    /// The ids of this name in /etc/subuid, from 0 on
    #[arg(long, value_name = "NAME")]
    pub subuidname: Option<String>,
    /// The ids of this name in /etc/subgid (default: as --subuidname)
    #[arg(long, value_name = "NAME")]
    pub subgidname: Option<String>,
}

impl UsernsArgs {
    /// Adds what is wished for.
    pub(in crate::commands) fn add_to(&self, wishes: &mut Wishes) -> anyhow::Result<()> {
        wishes.user_namespace = self.wanted()?;
        Ok(())
    }

    fn wanted(&self) -> anyhow::Result<UserNamespace> {
        if let Some(mode) = &self.userns {
            return mode_of(mode).with_context(|| format!("--userns {mode}"));
        }
        match (&self.subuidname, &self.subgidname) {
            (None, None) => {}
            (Some(one), None) | (None, Some(one)) => {
                return Ok(UserNamespace::Named { user: one.clone(), group: one.clone() });
            }
            (Some(user), Some(group)) => {
                return Ok(UserNamespace::Named { user: user.clone(), group: group.clone() });
            }
        }
        let parse = |option: &str, texts: &[String]| {
            let map = |text: &String| id_map(text).with_context(|| format!("{option} {text}"));
            texts.iter().map(map).collect::<anyhow::Result<Vec<_>>>()
        };
        let (uids, gids) = (parse("--uidmap", &self.uidmap)?, parse("--gidmap", &self.gidmap)?);
        Ok(match (uids.is_empty(), gids.is_empty()) {
            (true, true) => UserNamespace::Host,
            (false, true) => UserNamespace::Given(OwnIds { gids: uids.clone(), uids }),
            (true, false) => UserNamespace::Given(OwnIds { uids: gids.clone(), gids }),
            (false, false) => UserNamespace::Given(OwnIds { uids, gids }),
        })
    }
}

/// Finds the ids that are wished for, if they are to be the container's alone; see [`own_ids::claim`].
pub(in crate::commands) fn claim(
    containers: &Containers,
    wishes: &mut Wishes,
    image: &Image,
    layers: &Layers,
) -> anyhow::Result<Claim> {
    let user = wishes.user.clone().unwrap_or_else(|| image.config.config.user.clone());
    let known = || Known { passwd: text(layers, b"/etc/passwd"), group: text(layers, b"/etc/group"), user };
    Ok(own_ids::claim(containers, wishes, known)?)
}

/// Bytes of a passwd or group file that are looked at.
const FILE_BYTES_MAX: usize = 1 << 20;

/// What a file of an image says. One that is not there, or cannot be read, says nothing; the container will.
fn text(layers: &Layers, path: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut sink = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        if bytes.len() > FILE_BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
    };
    if let Err(error) = look::cat(layers.union(), path, &mut sink) {
        tracing::debug!(%error, "how many ids the image needs is not known");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn mode_of(text: &str) -> anyhow::Result<UserNamespace> {
    let (mode, options) = text.split_once(':').map_or((text, None), |(mode, rest)| (mode, Some(rest)));
    let number = |option: &str, value: &str| {
        value
            .parse::<u32>()
            .ok()
            .filter(|id| *id != u32::MAX)
            .with_context(|| format!("{option}: not a number of ids"))
    };
    let options = options.map(|options| options.split(',').collect::<Vec<_>>());
    match (mode, options) {
        ("" | "host", None) => Ok(UserNamespace::Host),
        ("nomap", None) => Ok(UserNamespace::NoMap),
        ("keep-id", options) => {
            let (mut uid, mut gid) = (None, None);
            for option in options.unwrap_or_default() {
                match option.split_once('=') {
                    Some(("uid", value)) => uid = Some(number(option, value)?),
                    Some(("gid", value)) => gid = Some(number(option, value)?),
                    _ => bail!("unknown option {option:?}: uid=N and gid=N are known"),
                }
            }
            Ok(UserNamespace::KeepId { uid, gid })
        }
        ("auto", options) => {
            let mut size = None;
            for option in options.unwrap_or_default() {
                match option.split_once('=') {
                    Some(("size", value)) => size = Some(number(option, value)?),
                    Some(("uidmapping" | "gidmapping", _)) => {
                        bail!("{option} is not supported: say all ids, with --uidmap and --gidmap")
                    }
                    _ => bail!("unknown option {option:?}: size=N is known"),
                }
            }
            ensure!(size != Some(0), "a container needs at least one id");
            Ok(UserNamespace::Auto { size })
        }
        ("host" | "nomap", Some(_)) => bail!("{mode} has no options"),
        ("container" | "ns", Some(_)) => bail!("the user namespace of another cannot be joined"),
        _ => bail!("unknown: host, keep-id, nomap and auto are known"),
    }
}

/// Podman's `[flags]INSIDE:[@]FROM[:SIZE]`, without its flags.
fn id_map(text: &str) -> anyhow::Result<IdMap> {
    let is_plain = text.starts_with(|first: char| first.is_ascii_digit()) && !text.contains('@');
    ensure!(is_plain, "flags are not supported: expected INSIDE:FROM:SIZE, three numbers");
    let numbers = text.split(':').map(|number| number.parse::<u32>().ok()).collect::<Option<Vec<_>>>();
    match numbers.as_deref() {
        Some(&[inside, outside]) => Ok(IdMap { inside, outside, count: 1 }),
        Some(&[inside, outside, count]) => Ok(IdMap { inside, outside, count }),
        _ => bail!("expected INSIDE:FROM:SIZE, three numbers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        let keep = |uid, gid| UserNamespace::KeepId { uid, gid };
        for (text, wanted) in [
            ("host", UserNamespace::Host),
            ("", UserNamespace::Host),
            ("nomap", UserNamespace::NoMap),
            ("keep-id", keep(None, None)),
            ("keep-id:uid=5", keep(Some(5), None)),
            ("keep-id:uid=5,gid=0", keep(Some(5), Some(0))),
            ("auto", UserNamespace::Auto { size: None }),
            ("auto:size=4096", UserNamespace::Auto { size: Some(4096) }),
        ] {
            assert_eq!(mode_of(text).unwrap(), wanted, "{text}");
        }
        for wrong in [
            "other",
            "private",
            "host:x",
            "nomap:uid=1",
            "keep-id:",
            "keep-id:size=5",
            "keep-id:uid=-1",
            "keep-id:uid=4294967295",
            "auto:size=0",
            "auto:size=x",
            "auto:uidmapping=0:1:1",
            "container:x",
            "ns:/x",
        ] {
            assert!(mode_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn maps() {
        assert_eq!(id_map("0:1:1000").unwrap(), IdMap { inside: 0, outside: 1, count: 1000 });
        assert_eq!(id_map("7:8").unwrap().count, 1);
        for wrong in ["", "0", "0:1:2:3", "+0:1:2", "u0:1:2", "0:@1:2", "0:-1:2", "a:b:c", "0:1:4294967296"] {
            assert!(id_map(wrong).is_err(), "{wrong}");
        }
    }
}
