// SPDX-License-Identifier: Apache-2.0
//! `isopod doctor`.

use super::{Global, Outcome, output};
use clap::{Args, ValueHint};
use isopod_engine::Observation;
use isopod_engine::doctor::{Check, Verdict, examine};
use isopod_engine::filters::{self, Argument};
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
    /// Look at what holds a running container's machine back, instead
    #[arg(long, value_name = "CONTAINER", conflicts_with = "kernel")]
    jail: Option<String>,
    /// List the system calls that are left to each thread of a machine, and why, instead
    #[arg(long, conflicts_with_all = ["kernel", "jail"])]
    filters: bool,
}

pub(super) fn run(global: &Global, args: &DoctorArgs) -> Outcome {
    if args.filters {
        return filters(&args.format);
    }
    if let Some(container) = &args.jail {
        return jail(&global.engine()?.isolation(container)?, &args.format);
    }
    let checks = examine(&global.options(), args.kernel.as_deref());
    match args.format.as_str() {
        "json" => output::line(&serde_json::to_string_pretty(&checks).unwrap_or_default())?,
        _ => output::data(checks.iter().map(told).collect::<String>().as_bytes())?,
    }
    Ok(u8::from(checks.iter().any(|check| check.verdict == Verdict::Bad)))
}

fn filters(format: &str) -> Outcome {
    let all = filters::all();
    if format == "json" {
        output::line(&serde_json::to_string_pretty(&all).unwrap_or_default())?;
        return Ok(0);
    }
    let mut text = String::new();
    for allowed in &all {
        let argument = |argument: &Argument| match argument {
            Argument { is: Some(value), .. } => format!("{value:#x}"),
            Argument { has_none_of, .. } => format!("not {:#x}", has_none_of.unwrap_or(0)),
        };
        let arguments: Vec<String> = allowed.arguments.iter().map(argument).collect();
        let call = match arguments.is_empty() {
            true => allowed.call.to_owned(),
            false => format!("{}({})", allowed.call, arguments.join(", ")),
        };
        text.push_str(&format!("{:<13} {call:<24} {}\n", allowed.thread, allowed.why));
    }
    output::data(text.as_bytes())?;
    Ok(0)
}

/// Each layer, and whether it holds. The code says whether all do of which that can be told.
fn jail(layers: &[Observation], format: &str) -> Outcome {
    match format {
        "json" => output::line(&serde_json::to_string_pretty(layers).unwrap_or_default())?,
        _ => output::data(layers.iter().map(observed).collect::<String>().as_bytes())?,
    }
    Ok(u8::from(layers.iter().any(|layer| layer.holds == Some(false))))
}

fn observed(layer: &Observation) -> String {
    let verdict = match layer.holds {
        Some(true) => "ok",
        Some(false) => "BAD",
        None => "-",
    };
    format!("{verdict:<5} {:<18} {}\n", layer.name, layer.found)
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
