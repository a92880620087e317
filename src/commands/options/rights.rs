//! What a container may do.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::container::{Rights, Unmask, Wishes};
use crate::launcher::{Capabilities, Seccomp, check_profile};

/// What a container may do
#[derive(Clone, Debug, Args)]
pub struct RightsArgs {
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    pub cap_add: Vec<String>,
    /// Take away a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    pub cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=FILE (docker's JSON) or unconfined, mask=PATH[:PATH], unmask=ALL or PATH[:PATH]
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// All that the container's user namespace allows: every capability, no filter of system calls, nothing hidden, all devices
    /// of the host. Never more than the caller may
    #[arg(long)]
    pub privileged: bool,
    /// Add the user to a group, a name or a number of the image
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
}

impl RightsArgs {
    /// Adds what is wished for.
    pub(in crate::commands) fn add_to(&self, wishes: &mut Wishes) -> anyhow::Result<()> {
        let mut rights = Rights {
            privileged: self.privileged,
            add: capabilities("--cap-add", &self.cap_add)?,
            drop: capabilities("--cap-drop", &self.cap_drop)?,
            ..Rights::default()
        };
        for option in &self.security_opt {
            security_option(option, &mut rights).with_context(|| format!("--security-opt {option}"))?;
        }
        rights.capabilities()?;
        if let Seccomp::Profile(text) = &rights.seccomp {
            check_profile(text)?;
        }
        wishes.rights = rights;
        wishes.groups.clone_from(&self.group_add);
        Ok(())
    }
}

fn capabilities(option: &str, names: &[String]) -> anyhow::Result<Capabilities> {
    names.iter().try_fold(Capabilities::NONE, |set, name| {
        let one =
            Capabilities::by_name(name).with_context(|| format!("{option} {name}: no such capability"))?;
        Ok(set.with(one))
    })
}

/// Bytes of a profile; docker's has some tens of thousands.
const PROFILE_BYTES_MAX: usize = 1 << 20;

/// Docker's and podman's, which write `=` or `:`.
fn security_option(option: &str, rights: &mut Rights) -> anyhow::Result<()> {
    let (key, value) = match option.split_once(['=', ':']) {
        Some((key, value)) => (key, Some(value)),
        None => (option, None),
    };
    match (key, value) {
        ("no-new-privileges", None | Some("true")) => rights.no_new_privileges = true,
        ("no-new-privileges", Some("false")) => rights.no_new_privileges = false,
        ("seccomp", Some("unconfined")) => rights.seccomp = Seccomp::Unconfined,
        ("seccomp", Some(file)) => {
            let text = std::fs::read_to_string(file)?;
            ensure!(text.len() <= PROFILE_BYTES_MAX, "larger than {PROFILE_BYTES_MAX} bytes");
            rights.seccomp = Seccomp::Profile(text);
        }
        ("mask", Some(paths)) => rights.mask.extend(absolute(paths)?),
        ("unmask", Some("ALL" | "all")) | ("systempaths", Some("unconfined")) => rights.unmask = Unmask::All,
        ("unmask", Some(paths)) => match &mut rights.unmask {
            Unmask::All => {}
            Unmask::Paths(known) => known.extend(absolute(paths)?),
        },
        // There is nothing of the kind that would have to be switched off.
        ("apparmor", Some("unconfined")) | ("label", Some("disable")) => {}
        ("apparmor" | "label", Some(_)) => {
            bail!("containers get neither AppArmor profiles nor SELinux labels")
        }
        _ => bail!(
            "not known; known are no-new-privileges, seccomp=FILE|unconfined, mask=PATHS, unmask=PATHS|ALL, \
             systempaths=unconfined, apparmor=unconfined, label=disable"
        ),
    }
    Ok(())
}

fn absolute(paths: &str) -> anyhow::Result<Vec<PathBuf>> {
    let paths = paths.split(':').map(|path| {
        ensure!(path.starts_with('/'), "{path:?} is not an absolute path");
        Ok(PathBuf::from(path))
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(options: &[&str]) -> anyhow::Result<Rights> {
        let mut rights = Rights::default();
        options.iter().try_for_each(|option| security_option(option, &mut rights)).map(|()| rights)
    }

    #[test]
    fn security_options() {
        let rights = options(&["no-new-privileges", "seccomp=unconfined", "label=disable"]).unwrap();
        assert!(rights.no_new_privileges && rights.seccomp == Seccomp::Unconfined);
        assert!(!options(&["no-new-privileges:true", "no-new-privileges=false"]).unwrap().no_new_privileges);
        assert_eq!(
            options(&["unmask=/proc/a:/sys/b"]).unwrap().unmask,
            Unmask::Paths(vec!["/proc/a".into(), "/sys/b".into()])
        );
        assert_eq!(options(&["unmask=ALL", "unmask=/x"]).unwrap().unmask, Unmask::All);
        assert_eq!(options(&["mask=/etc/hosts"]).unwrap().mask, [PathBuf::from("/etc/hosts")]);
        for wrong in [
            "",
            "seccomp",
            "mask=etc",
            "apparmor=strict",
            "label=type:x",
            "no-new-privileges=x",
            "seccomp=/not/there",
        ] {
            assert!(options(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_capabilities() {
        let names = ["net_admin", "CAP_SYS_TIME"].map(str::to_owned);
        assert_eq!(
            capabilities("--cap-add", &names).unwrap().names().collect::<Vec<_>>(),
            ["CAP_NET_ADMIN", "CAP_SYS_TIME"]
        );
        assert!(
            capabilities("--cap-add", &["FLY".to_owned()]).unwrap_err().to_string().contains("--cap-add FLY")
        );
    }
}
