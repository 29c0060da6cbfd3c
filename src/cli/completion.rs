// SPDX-License-Identifier: Apache-2.0
//! `isopod completion`.

use super::{Outcome, command, output};
use clap::Args;
use clap_complete::{Shell, generate};

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "For example: isopod completion bash > /etc/bash_completion.d/isopod")]
pub(super) struct CompletionArgs {
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs) -> Outcome {
    let mut script = Vec::new();
    generate(args.shell, &mut command(), "isopod", &mut script);
    output::data(&script)?;
    Ok(0)
}
