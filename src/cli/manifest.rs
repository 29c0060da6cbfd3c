// SPDX-License-Identifier: Apache-2.0
//! `isopod manifest`.

use super::{Global, Outcome, document, output};
use clap::{Args, Subcommand};
use isopod_engine::Engine;

/// Look at manifests where they are
#[derive(Debug, Args)]
pub(super) struct ManifestArgs {
    #[command(subcommand)]
    verb: ManifestVerb,
}

#[derive(Debug, Subcommand)]
enum ManifestVerb {
    /// Show the manifest, or the list of them, that a registry has under a name: nothing is pulled
    Inspect {
        /// Its name: REGISTRY/REPOSITORY:TAG, or with @DIGEST
        #[arg(value_name = "IMAGE")]
        image: String,
        /// Show each manifest of a list, with its descriptor
        #[arg(short, long)]
        verbose: bool,
    },
}

pub(super) fn run(_: &Global, args: &ManifestArgs) -> Outcome {
    let ManifestVerb::Inspect { image, verbose } = &args.verb;
    if *verbose {
        let all = Engine::remote_manifests(image)?;
        output::line(&document::printable(&serde_json::to_string_pretty(&all).unwrap_or_default()))?;
        return Ok(0);
    }
    let bytes = Engine::remote_manifest(image)?;
    if output::stdout_is_terminal() {
        output::line(&document::printable(&String::from_utf8_lossy(&bytes)))?;
    } else {
        // To the byte, so that it has the digest it should have.
        output::data(&bytes)?;
    }
    Ok(0)
}
