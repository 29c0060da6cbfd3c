// SPDX-License-Identifier: Apache-2.0
//! `rootfs/demo.toml`, as typed.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The name the image has when loaded.
    pub(super) reference: String,
    /// Seconds since 1970, of the image and of every file in it.
    pub(super) time: u64,
    pub(super) config: Config,
    #[serde(rename = "layer")]
    pub(super) layers: Vec<LayerSpec>,
}

/// The `config` object of the OCI image configuration, which has these very names.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub(super) struct Config {
    user: String,
    env: Vec<String>,
    working_dir: String,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LayerSpec {
    /// The layer's line in the image's history.
    pub(super) about: String,
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Entry {
    Dir(Dir),
    File(File),
    Link(Link),
    Applets(Applets),
    Whiteout(Whiteout),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dir {
    pub(super) dir: String,
    pub(super) mode: Option<u32>,
    #[serde(default)]
    pub(super) uid: u64,
    #[serde(default)]
    pub(super) gid: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) file: String,
    /// Where its contents are, or themselves in `text`.
    pub(super) from: Option<String>,
    pub(super) text: Option<String>,
    /// The Debian package that has `from`.
    pub(super) package: Option<String>,
    pub(super) mode: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    pub(super) link: String,
    pub(super) to: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Applets {
    pub(super) applets: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whiteout {
    pub(super) whiteout: String,
}

impl Manifest {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
    }
}
