// SPDX-License-Identifier: Apache-2.0
//! An image's configuration: what to run in it, how, as whom. All of it is data; none of it names anything on the host.

use crate::digest::Digest;
use crate::error::{ImageError, Kind, Result};
use crate::strict;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::env;
use std::fmt::{Display, Formatter, Result as FmtResult};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// What this machine runs, in Go's words.
    pub fn host() -> Self {
        let architecture = match env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    pub(crate) fn runs_on(&self, host: &Self) -> bool {
        self.os == host.os && self.architecture == host.architecture
    }
}

impl Display for Platform {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        let variant = self.variant.as_deref().unwrap_or_default();
        let slash = if variant.is_empty() { "" } else { "/" };
        let text = format!("{}/{}{slash}{variant}", self.os, self.architecture);
        f.write_str(&text.escape_debug().to_string())
    }
}

/// The `config` object of an image's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
    /// Paths.
    #[serde(deserialize_with = "keys")]
    pub volumes: Vec<String>,
    /// `port/protocol`.
    #[serde(deserialize_with = "keys")]
    pub exposed_ports: Vec<String>,
}

/// The whole document, as far as it matters.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Configuration {
    #[serde(flatten)]
    pub(crate) platform: Platform,
    #[serde(default)]
    pub(crate) created: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) config: ImageConfig,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) diff_ids: Vec<Digest>,
}

/// Parses a configuration for an image of so many layers, and refuses one that is not for this host.
pub(crate) fn parse(bytes: &[u8], layers: usize) -> Result<Configuration> {
    let configuration: Configuration = strict::parse("the image configuration", bytes)?;
    if configuration.rootfs.kind != "layers" {
        return Err(ImageError::invalid("the image configuration's root file system is not made of layers"));
    }
    let diff_ids = configuration.rootfs.diff_ids.len();
    if diff_ids != layers {
        return Err(ImageError::invalid(format_args!(
            "the image configuration has {diff_ids} layers where the manifest has {layers}"
        )));
    }
    let (has, needs) = (&configuration.platform, Platform::host());
    if !has.runs_on(&needs) {
        return Err(ImageError::new(
            Kind::Unsupported,
            format_args!("the image is for {has}; this host needs {needs}"),
        ));
    }
    Ok(configuration)
}

/// Go writes absent lists as null.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A set as Go's JSON has it: an object of empty objects.
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let set = Option::<BTreeMap<String, IgnoredAny>>::deserialize(deserializer)?;
    Ok(set.unwrap_or_default().into_keys().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(config: &str, platform: &str, diff_ids: usize) -> Vec<u8> {
        let ids = vec![format!("\"{}\"", Digest::of(b"")); diff_ids].join(",");
        format!(r#"{{{platform}, "config": {config}, "rootfs": {{"type": "layers", "diff_ids": [{ids}]}}}}"#)
            .into_bytes()
    }

    const HERE: &str = r#""os": "linux", "architecture": "amd64""#;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn what_an_image_says_about_running_it_is_read() {
        let config = r#"{"User": "web:web", "Env": ["A=1"], "Entrypoint": null, "Cmd": ["sh", "-c"], "WorkingDir": "/srv",
            "Labels": {"a": "b"}, "StopSignal": "SIGINT", "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}}}"#;
        let parsed = parse(&with(config, HERE, 2), 2).unwrap().config;
        assert_eq!(parsed.user, "web:web");
        assert_eq!(parsed.cmd, ["sh", "-c"]);
        assert!(parsed.entrypoint.is_empty());
        assert_eq!(parsed.volumes, ["/data"]);
        assert_eq!(parsed.exposed_ports, ["80/tcp"]);
        assert_eq!(parse(&with("null", HERE, 1), 1).unwrap().config, ImageConfig::default());
    }

    #[test]
    fn an_image_for_another_machine_is_refused_with_what_it_is_for() {
        let error = parse(&with("{}", r#""os": "linux", "architecture": "s390x""#, 1), 1).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.to_string().contains("linux/s390x"), "{error}");
        assert!(error.to_string().contains(&Platform::host().to_string()), "{error}");
    }

    #[test]
    fn layers_and_diff_ids_that_do_not_match_are_refused() {
        assert_eq!(parse(&with("{}", HERE, 1), 2).unwrap_err().kind(), Kind::Invalid);
    }
}
