// SPDX-License-Identifier: Apache-2.0
//! `kernel-config/kernel.toml`, as it was when this was compiled: the id is of the same bytes.

use anyhow::{Context, Result};
use isopod_kernel_config::{Input, input};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The kernel series, `6.12`: any version of it will do.
    pub(super) series: String,
    /// Configuration fragments, in the order they are merged.
    fragments: Vec<String>,
    /// Patches, in the order they are applied.
    patches: Vec<String>,
}

impl Manifest {
    pub(super) fn read() -> Result<Self> {
        let text = input("kernel.toml").context("kernel.toml is not among the inputs")?;
        toml::from_str(text.contents).context("cannot read kernel-config/kernel.toml")
    }

    pub(super) fn fragments(&self) -> Result<Vec<Input>> {
        self.fragments.iter().map(|name| named(name)).collect()
    }

    pub(super) fn patches(&self) -> Result<Vec<Input>> {
        self.patches.iter().map(|name| named(&format!("patches/{name}"))).collect()
    }
}

fn named(name: &str) -> Result<Input> {
    input(name).with_context(|| format!("kernel.toml names {name}, which is not among the inputs of lib.rs"))
}

#[cfg(test)]
mod tests {
    use super::Manifest;
    use isopod_kernel_config::INPUTS;

    #[test]
    fn the_manifest_names_every_input_but_itself_and_the_debug_fragment() {
        let manifest = Manifest::read().unwrap();
        let named = manifest.fragments().unwrap().len() + manifest.patches().unwrap().len();
        assert_eq!(named + 2, INPUTS.len());
    }
}
