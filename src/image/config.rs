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
use std::str::FromStr;

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

    /// What to say of an image that is for something else.
    pub(crate) fn instead_of(&self, has: &str) -> ImageError {
        let needs = if *self == Self::host() { "; this host needs " } else { ", not for " };
        ImageError::new(Kind::Unsupported, format_args!("the image is for {has}{needs}{self}"))
    }

    /// Whether an image for this is what was wanted; a variant counts if one was named.
    pub(crate) fn fits(&self, wanted: &Self) -> bool {
        let variant = wanted.variant.is_none() || wanted.variant == self.variant;
        self.os == wanted.os && self.architecture == wanted.architecture && variant
    }
}

/// `OS/ARCHITECTURE[/VARIANT]`, or the architecture alone; uname's words for one are Go's, too.
impl FromStr for Platform {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part.len() <= 32
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let (os, architecture, variant) = match parts[..] {
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => ("", "", None),
        };
        if os.is_empty() || !parts.iter().all(word) {
            let shown: String = text.chars().take(100).flat_map(char::escape_debug).collect();
            return Err(ImageError::invalid(format_args!(
                "`{shown}` is no platform: they are OS/ARCHITECTURE[/VARIANT], as linux/arm64/v8"
            )));
        }
        let architecture = match architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        };
        let variant = variant.map(str::to_ascii_lowercase);
        Ok(Self { os: os.to_ascii_lowercase(), architecture, variant })
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

impl Configuration {
    /// Refuses an image that is for something else.
    pub(crate) fn expect(&self, wanted: &Platform) -> Result<()> {
        let has = &self.platform;
        // Configurations often leave the variant out that their index names.
        let wanted_here = Platform { variant: None, ..wanted.clone() };
        if has.fits(&wanted_here) {
            return Ok(());
        }
        Err(wanted.instead_of(&has.to_string()))
    }
}

/// Parses a configuration for an image of so many layers.
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
        let other = parse(&with("{}", r#""os": "linux", "architecture": "s390x""#, 1), 1).unwrap();
        let error = other.expect(&Platform::host()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.to_string().contains("linux/s390x"), "{error}");
        assert!(error.to_string().contains(&Platform::host().to_string()), "{error}");
    }

    #[test]
    fn platforms_are_named_as_docker_names_them() {
        let named = |text: &str| text.parse::<Platform>().map(|platform| platform.to_string());
        assert_eq!(named("linux/arm64").unwrap(), "linux/arm64");
        assert_eq!(named("aarch64").unwrap(), "linux/arm64");
        assert_eq!(named("Linux/x86_64").unwrap(), "linux/amd64");
        assert_eq!(named("linux/arm/v7").unwrap(), "linux/arm/v7");
        for bad in ["", "linux/", "/amd64", "a/b/c/d", "linux/\u{1b}[2J", "linux amd64"] {
            assert_eq!(named(bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
    }

    #[test]
    fn layers_and_diff_ids_that_do_not_match_are_refused() {
        assert_eq!(parse(&with("{}", HERE, 1), 2).unwrap_err().kind(), Kind::Invalid);
    }
}
