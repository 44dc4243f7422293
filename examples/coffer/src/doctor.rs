//! `coffer doctor`.

use std::process::ExitCode;

use sandbox::{Check, Verdict, doctor};

use crate::cli::DoctorOptions;
use crate::failure::Failure;
use crate::print::print;

/// Prints each check with its remedy; fails when a sandbox would not start.
pub(crate) fn main(options: &DoctorOptions) -> Result<ExitCode, Failure> {
    let checks = doctor(&options.guest.files());
    let text = if options.json {
        format!("{}\n", serde_json::json!({ "checks": checks }))
    } else {
        checks.iter().map(lines).collect()
    };
    print(text.as_bytes())?;
    if checks.iter().any(|check| check.verdict == Verdict::Failed) {
        Ok(ExitCode::FAILURE)
    } else {
        Ok(ExitCode::SUCCESS)
    }
}

fn lines(check: &Check) -> String {
    let sign = match check.verdict {
        Verdict::Ok => "ok     ",
        Verdict::Warning => "warning",
        Verdict::Failed => "FAILED ",
    };
    let remedy = check
        .remedy
        .map(|remedy| format!("        -> {remedy}\n"))
        .unwrap_or_default();
    format!("{sign} {}: {}\n{remedy}", check.name, check.found)
}
