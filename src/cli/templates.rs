// SPDX-License-Identifier: Apache-2.0
//! `isopod template`.

use super::format::{self, Column, Fields, ListArgs};
use super::{Global, Outcome, args, human, output};
use clap::{Args, Subcommand, ValueHint};
use isopod_engine::TemplateSummary;
use isopod_engine::spec::MachineSpec;
use std::path::PathBuf;

/// Look after the frozen machines that containers start from; `run` makes the one it needs by itself
#[derive(Debug, Args)]
pub(super) struct TemplateArgs {
    #[command(subcommand)]
    verb: TemplateVerb,
}

#[derive(Debug, Subcommand)]
enum TemplateVerb {
    /// Make the template for machines of this size, if there is none
    Build(BuildArgs),
    /// List templates
    Ls(ListArgs),
    /// Remove templates; machines that were started from them go on
    Rm {
        /// Keys, as `ls` shows them
        #[arg(required_unless_present = "unusable", value_name = "KEY")]
        keys: Vec<String>,
        /// All that this isopod cannot use, as after an update
        #[arg(long, conflicts_with = "keys")]
        unusable: bool,
    },
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// Memory of the machines [default: 256m]
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Number of CPUs of the machines [default: 1]
    #[arg(long, value_name = "N")]
    cpus: Option<String>,
    /// Guest kernel, an uncompressed vmlinux
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    kernel: Option<PathBuf>,
}

const FIELDS: [&str; 7] = ["Key", "CPUs", "Memory", "Kernel", "Usable", "CreatedSince", "Size"];
const COLUMNS: [Column; 7] = [
    ("KEY", "Key"),
    ("CPUS", "CPUs"),
    ("MEMORY", "Memory"),
    ("KERNEL", "Kernel"),
    ("USABLE", "Usable"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

pub(super) fn run(global: &Global, args: &TemplateArgs) -> Outcome {
    let engine = global.engine()?;
    match &args.verb {
        TemplateVerb::Build(args) => {
            let machine = MachineSpec {
                memory: args.memory.as_deref().map(args::memory).transpose()?.unwrap_or_default(),
                vcpus: args.cpus.as_deref().map(args::cpus).transpose()?.unwrap_or_default(),
                kernel: args.kernel.clone(),
                ..MachineSpec::default()
            };
            let mut making = output::Making::new(true);
            let key = engine.build_template(&machine, &mut |stage| making.at(stage))?;
            output::line(&key)?;
        }
        TemplateVerb::Ls(args) => {
            let all: Vec<Fields> = engine.templates()?.iter().map(fields).collect();
            format::list(args, &all, &COLUMNS, &FIELDS)?;
        }
        TemplateVerb::Rm { keys, unusable } => {
            let of_no_use = || -> Result<Vec<String>, super::error::Failure> {
                let all = engine.templates()?.into_iter();
                Ok(all.filter(|template| !template.usable).map(|template| template.key).collect())
            };
            let keys = if *unusable { of_no_use()? } else { keys.clone() };
            return output::each(&keys, |key| engine.remove_template(key));
        }
    }
    Ok(0)
}

fn fields(template: &TemplateSummary) -> Fields {
    vec![
        ("Key", template.key.clone()),
        ("CPUs", template.vcpus.to_string()),
        ("Memory", format!("{} MiB", template.memory_mib)),
        ("Kernel", human::short(&template.kernel).to_owned()),
        ("Usable", if template.usable { "yes" } else { "no" }.to_owned()),
        ("CreatedSince", human::ago(template.created, human::now())),
        ("Size", human::size(template.size)),
    ]
}
