// SPDX-License-Identifier: Apache-2.0
//! `isopod tag`.

use super::{Global, Outcome};
use clap::Args;

/// Give an image one more name
#[derive(Debug, Args)]
pub(super) struct TagArgs {
    /// Name, digest or the beginning of one
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The new name: REGISTRY/REPOSITORY:TAG
    #[arg(value_name = "NAME")]
    name: String,
}

pub(super) fn run(global: &Global, args: &TagArgs) -> Outcome {
    global.engine()?.tag(&args.image, &args.name)?;
    Ok(0)
}
