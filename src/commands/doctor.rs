//! `layerfs doctor`

use super::args::DoctorArgs;
use super::environment;
use crate::doctor::{self, Check, Outcome};
use crate::look::told;

/// Something is missing that `run` needs.
const MISSING: u8 = 1;

/// Prints a line for each thing that was looked at.
pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<u8> {
    let report = doctor::examine(&environment::root()?);
    if args.json {
        super::print_json(&serde_json::to_string_pretty(&report)?)?;
    } else {
        super::print(&report.checks.iter().map(line).collect::<String>())?;
    }
    Ok(if report.works { 0 } else { MISSING })
}

fn line(check: &Check) -> String {
    let outcome = match check.outcome {
        Outcome::Ok => "ok",
        Outcome::Warning => "warning",
        Outcome::Missing => "missing",
    };
    let fix = check.fix.as_ref().map(|fix| format!(" -> {fix}")).unwrap_or_default();
    format!("{outcome:<8} {:<16} {}\n", check.name, told(&format!("{}{fix}", check.says)))
}
