//! The program's environment, and where it is looked for.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use super::plan::Plan;

/// Docker's and podman's, for images that set none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of the program: the plan's, after what every container has.
pub(super) fn complete(plan: &Plan, home: &str) -> Vec<OsString> {
    let mut variables = vec![("PATH", DEFAULT_PATH), ("HOSTNAME", &plan.hostname), ("container", "layerfs")];
    if plan.terminal {
        variables.push(("TERM", "xterm"));
    }
    variables.push(("HOME", home));
    let mut complete: Vec<OsString> =
        variables.iter().map(|(key, value)| OsString::from(format!("{key}={value}"))).collect();
    for variable in &plan.env {
        let key = key(variable);
        match complete.iter_mut().find(|other| self::key(other) == key) {
            Some(other) => other.clone_from(variable),
            None => complete.push(variable.clone()),
        }
    }
    complete
}

fn key(variable: &OsStr) -> &[u8] {
    variable.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default()
}

/// The paths at which a program of that name may be, in the order in which they are tried.
pub(super) fn candidates(program: &OsStr, environment: &[OsString]) -> Vec<OsString> {
    if program.as_bytes().contains(&b'/') || program.is_empty() {
        return vec![program.to_owned()];
    }
    let path = environment.iter().find(|variable| key(variable) == b"PATH");
    let path = path.map_or(&b""[..], |variable| variable.as_bytes().get(5..).unwrap_or_default());
    path.split(|byte| *byte == b':')
        .map(|directory| {
            // An empty element is the working directory (execvp(3)).
            let directory = if directory.is_empty() { b"." } else { directory };
            OsString::from_vec([directory, b"/", program.as_bytes()].concat())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(env: &[&str]) -> Plan {
        let mut plan = Plan::new("0123456789abcdef", "/nowhere".into(), Vec::new());
        plan.env = env.iter().map(OsString::from).collect();
        plan
    }

    #[test]
    fn the_users_values_win() {
        let env = complete(&plan(&["A=1", "HOME=/h", "A=2", "PATH=/p"]), "/root");
        assert_eq!(env, ["PATH=/p", "HOSTNAME=0123456789ab", "container=layerfs", "HOME=/h", "A=2"]);
    }

    #[test]
    fn a_terminal_has_a_type() {
        let mut plan = plan(&[]);
        plan.terminal = true;
        assert!(complete(&plan, "/").contains(&OsString::from("TERM=xterm")));
        plan.terminal = false;
        assert!(!complete(&plan, "/").contains(&OsString::from("TERM=xterm")));
    }

    #[test]
    fn programs_are_looked_for_in_the_containers_path() {
        let env = [OsString::from("XPATH=/x"), OsString::from("PATH=/a::/b")];
        assert_eq!(candidates(OsStr::new("sh"), &env), ["/a/sh", "./sh", "/b/sh"]);
        assert_eq!(candidates(OsStr::new("./sh"), &env), ["./sh"]);
        assert_eq!(candidates(OsStr::new(""), &env), [""]);
    }
}
