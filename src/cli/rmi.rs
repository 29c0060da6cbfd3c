// SPDX-License-Identifier: Apache-2.0
//! `isopod rmi`.

use super::error::Failure;
use super::{Global, Outcome, output};
use clap::Args;
use isopod_engine::Removed;

/// Take names from images, and remove those that have no name left
#[derive(Debug, Args)]
pub(super) struct RmiArgs {
    /// Names, digests or beginnings of digests
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Even with several names, or with containers that are over
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(global: &Global, args: &RmiArgs) -> Outcome {
    let engine = global.engine()?;
    let mut code = 0;
    for image in &args.images {
        match engine.remove_image(image, args.force) {
            Ok(removed) => tell(&removed)?,
            Err(error) => {
                let failure = Failure::from(error);
                output::talk(&failure.to_string());
                code = failure.code();
            }
        }
    }
    Ok(code)
}

/// In Docker's words.
fn tell(removed: &Removed) -> Result<(), Failure> {
    for name in &removed.untagged {
        output::line(&format!("Untagged: {}", name.familiar()))?;
    }
    removed.deleted.iter().try_for_each(|digest| output::line(&format!("Deleted: {digest}")))
}
