//! Row 10: what layerfs needs of a host, looked at ahead: what is there, what its absence means, and what to do.
//!
//! Nothing is believed that can be tried: system calls are called, and at the end an empty container is started as `run`
//! would start it. Whatever is tried happens in a child process with a time limit and in namespaces that go with it.

mod child;
mod files;
mod ids;
mod kernel;
mod limits;
mod trial;

use std::path::Path;

use serde::Serialize;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Something works less well, or not at all that not everybody needs.
    Warning,
    /// `run` does not work without.
    Missing,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub outcome: Outcome,
    /// What was found, and what it means.
    pub says: String,
    /// The command that helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Everything that was found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether `run` works.
    pub works: bool,
    /// What was looked at.
    pub checks: Vec<Check>,
}

impl Check {
    fn ok(name: &'static str, says: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Ok, says: says.into(), fix: None }
    }

    fn warning(name: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Warning, says: says.into(), fix: Some(fix.into()) }
    }

    fn missing(name: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Missing, says: says.into(), fix: Some(fix.into()) }
    }
}

/// Looks at everything. `store` is where the store is, or would be.
///
/// The calling process must have one thread.
#[must_use]
pub fn examine(store: &Path) -> Report {
    let mut checks = vec![
        kernel::system_calls(),
        kernel::user_namespaces(),
        files::fuse_device(),
        kernel::proc_is_whole(),
        ids::ranges(),
        ids::helpers(),
        ids::new_privileges(),
        files::mount_helper(),
        files::network(),
        limits::control_groups(),
        limits::descriptors(),
        files::passthrough(),
    ];
    checks.extend(files::store(store));
    checks.push(trial::run(store));
    judged(checks)
}

/// The trial knows best: what it did without is not needed.
fn judged(mut checks: Vec<Check>) -> Report {
    let tried_well =
        checks.iter().any(|check| check.name == trial::NAME && check.outcome != Outcome::Missing);
    for check in &mut checks {
        if tried_well
            && check.outcome == Outcome::Missing
            && ![files::STORE, files::SPACE].contains(&check.name)
        {
            check.outcome = Outcome::Warning;
        }
    }
    let works = checks.iter().all(|check| check.outcome != Outcome::Missing);
    Report { works, checks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trial_knows_best() {
        let bad = || Check::missing("kernel", "no", "do");
        let report = judged(vec![bad(), Check::ok(trial::NAME, "yes")]);
        assert!(report.works && report.checks[0].outcome == Outcome::Warning);
        let report = judged(vec![bad(), Check::missing(trial::NAME, "no", "do")]);
        assert!(!report.works && report.checks[0].outcome == Outcome::Missing);
        // It does not write to the store.
        let report = judged(vec![Check::missing(files::STORE, "no", "do"), Check::ok(trial::NAME, "yes")]);
        assert!(!report.works);
    }
}
