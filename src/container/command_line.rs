//! What a container runs: the image's wishes and the user's, put together as docker does.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::devices;
use super::wishes::Wishes;
use crate::launcher::Plan;
use crate::model::image_config::ProcessConfig;

/// Neither the image nor the user says what to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no command: the image names none, so give one after IMAGE")]
pub struct NoCommand;

/// The program and its arguments: entrypoint, then command. A new entrypoint makes the image's command meaningless.
///
/// # Errors
/// [`NoCommand`]
pub fn arguments(image: &ProcessConfig, wishes: &Wishes) -> Result<Vec<OsString>, NoCommand> {
    let texts = |list: &[String]| list.iter().map(OsString::from).collect::<Vec<_>>();
    let mut arguments = match &wishes.entrypoint {
        None => texts(&image.entrypoint),
        Some(entrypoint) if entrypoint.is_empty() => Vec::new(),
        Some(entrypoint) => vec![OsString::from(entrypoint)],
    };
    match (wishes.command.is_empty(), &wishes.entrypoint) {
        (false, _) => arguments.extend(wishes.command.iter().cloned()),
        (true, None) => arguments.extend(texts(&image.cmd)),
        (true, Some(_)) => {}
    }
    if arguments.is_empty() { Err(NoCommand) } else { Ok(arguments) }
}

/// The launcher's plan for a container.
///
/// # Errors
/// When the caller's `/etc/hosts`, `/etc/resolv.conf` or `/dev` cannot be read, the rights contradict each other, or the
/// caller has no such ids.
pub fn plan(
    id: &str,
    mount_point: PathBuf,
    arguments: Vec<OsString>,
    image: &ProcessConfig,
    wishes: &Wishes,
) -> std::io::Result<Plan> {
    let mut plan = Plan::new(id, mount_point, arguments);
    if let Some(hostname) = &wishes.hostname {
        plan.hostname.clone_from(hostname);
    }
    plan.env = image.env.iter().map(OsString::from).chain(wishes.env.iter().cloned()).collect();
    match &wishes.workdir {
        Some(workdir) => plan.cwd = PathBuf::from(workdir),
        None if !image.working_dir.is_empty() => {
            plan.cwd = PathBuf::from(&image.working_dir);
            plan.create_cwd = true;
        }
        None => {}
    }
    plan.user = wishes.user.clone().unwrap_or_else(|| image.user.clone());
    let ids = &wishes.user_namespace;
    plan.own_ids = ids.own_ids(&plan.id_maps).map_err(std::io::Error::other)?;
    plan.added_user = ids.added_user(&plan.id_maps);
    if plan.user.is_empty() {
        plan.user = ids.user(&plan.id_maps).unwrap_or_default();
    }
    plan.groups.clone_from(&wishes.groups);
    plan.timeout = wishes.timeout.map(Duration::from_secs);
    plan.init = wishes.init;
    plan.terminal = wishes.terminal;
    plan.interactive = wishes.interactive;
    plan.network = wishes.network;
    plan.volumes = wishes.volumes.iter().map(|used| used.mount.clone()).collect();
    plan.tmpfs.clone_from(&wishes.tmpfs);
    plan.shm_bytes = wishes.shm_bytes.unwrap_or(plan.shm_bytes);
    plan.rlimits.clone_from(&wishes.rlimits);
    plan.oom_score_adj = wishes.oom_score_adj;
    plan.devices.clone_from(&wishes.devices);
    if wishes.rights.privileged {
        let mut all = devices::all_devices()?;
        all.retain(|device| !plan.has_at(&device.destination));
        plan.devices.extend(all);
    }
    wishes.rights.apply(&mut plan).map_err(std::io::Error::other)?;
    plan.files = crate::launcher::default_files(&plan.hostname, plan.network, &wishes.names)?;
    plan.resources.clone_from(&wishes.resources);
    plan.runtime = wishes.runtime.clone().map(PathBuf::from);
    if wishes.read_only {
        plan.read_only = true;
        plan.add_read_only_tmpfs();
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ProcessConfig {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        ProcessConfig {
            entrypoint: list(&["/entry", "-x"]),
            cmd: list(&["serve"]),
            env: list(&["A=1", "B=2"]),
            user: "www".to_owned(),
            working_dir: "/srv".to_owned(),
            ..ProcessConfig::default()
        }
    }

    fn run(entrypoint: Option<&str>, command: &[&str]) -> Result<String, NoCommand> {
        let wishes = Wishes {
            entrypoint: entrypoint.map(str::to_owned),
            command: command.iter().map(OsString::from).collect(),
            ..Wishes::default()
        };
        let joined = |list: Vec<OsString>| list.join(std::ffi::OsStr::new(" ")).into_string().unwrap();
        arguments(&image(), &wishes).map(joined)
    }

    #[test]
    fn entrypoint_and_command() {
        assert_eq!(run(None, &[]).unwrap(), "/entry -x serve");
        assert_eq!(run(None, &["ls", "-l"]).unwrap(), "/entry -x ls -l");
        assert_eq!(run(Some("/bin/sh"), &[]).unwrap(), "/bin/sh");
        assert_eq!(run(Some("/bin/sh"), &["-c", "x"]).unwrap(), "/bin/sh -c x");
        assert_eq!(run(Some(""), &["ls"]).unwrap(), "ls");
        assert_eq!(run(Some(""), &[]), Err(NoCommand));
    }

    #[test]
    fn the_user_wins_over_the_image() {
        let wishes = Wishes { env: vec!["B=3".into()], ..Wishes::default() };
        let made = plan("0123456789abcdef", "/m".into(), vec!["x".into()], &image(), &wishes).unwrap();
        assert_eq!(made.env, ["A=1", "B=2", "B=3"]);
        assert_eq!((made.user.as_str(), made.create_cwd), ("www", true));
        let wishes = Wishes { user: Some("0".to_owned()), workdir: Some("/tmp".into()), ..Wishes::default() };
        let made = plan("0123456789abcdef", "/m".into(), vec!["x".into()], &image(), &wishes).unwrap();
        assert_eq!((made.user.as_str(), made.create_cwd), ("0", false));
    }
}
