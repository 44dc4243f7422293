//! `coffer doctor`.

use std::process::ExitCode;

use sandbox::{Check, Verdict, doctor};

use crate::cli::DoctorOptions;

/// Prints each check with its remedy; fails when a sandbox would not start.
pub(crate) fn main(options: &DoctorOptions) -> ExitCode {
    let checks = doctor(&options.guest.files());
    if options.json {
        println!("{}", serde_json::json!({ "checks": checks }));
    } else {
        checks.iter().for_each(print);
    }
    if checks.iter().any(|check| check.verdict == Verdict::Failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn print(check: &Check) {
    let sign = match check.verdict {
        Verdict::Ok => "ok     ",
        Verdict::Warning => "warning",
        Verdict::Failed => "FAILED ",
    };
    println!("{sign} {}: {}", check.name, check.found);
    if let Some(remedy) = check.remedy {
        println!("        -> {remedy}");
    }
}
