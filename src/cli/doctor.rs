// SPDX-License-Identifier: Apache-2.0
//! `isopod doctor`.

use super::{Global, Outcome, output};
use clap::{Args, ValueHint};
use isopod_engine::doctor::{Check, Verdict, examine};
use std::path::PathBuf;

/// Check whether this host can run containers, and say what to do if not
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// `text` or `json`
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// Guest kernel to look at
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    kernel: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: &DoctorArgs) -> Outcome {
    let checks = examine(&global.options(), args.kernel.as_deref());
    match args.format.as_str() {
        "json" => output::line(&serde_json::to_string_pretty(&checks).unwrap_or_default())?,
        _ => output::data(checks.iter().map(told).collect::<String>().as_bytes())?,
    }
    Ok(u8::from(checks.iter().any(|check| check.verdict == Verdict::Bad)))
}

fn told(check: &Check) -> String {
    let verdict = match check.verdict {
        Verdict::Good => "ok",
        Verdict::Notice => "note",
        Verdict::Bad => "BAD",
    };
    let cure = check.cure.as_ref().map(|cure| format!("{:22}→ {cure}\n", "")).unwrap_or_default();
    format!("{verdict:<5} {:<15} {}\n{cure}", check.name, check.found)
}
