// SPDX-License-Identifier: Apache-2.0
//! What a user says of registries, where Docker has it said: `daemon.json` in `/etc/docker`, and in `docker` of his folder
//! of configurations as rootless Docker has it. Of that file `registry-mirrors` and `insecure-registries` are read.

use crate::error::{During, ImageError, Kind, Result};
use serde::Deserialize;
use std::env;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

const SYSTEM: &str = "/etc/docker/daemon.json";
/// In a user's folder of configurations.
const CERTIFICATES: [&str; 2] = ["docker/certs.d", "containers/certs.d"];
const OF_A_USER: &str = "docker/daemon.json";

#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Hosts with their ports, or addresses as 10.0.0.0/8, that need not have TLS or a certificate anybody trusts.
    pub insecure: Vec<String>,
    /// Where images of docker.io are asked for first: `https://HOST[:PORT]`, or `http://` for one without TLS.
    pub mirrors: Vec<String>,
    /// Folders with a `HOST[:PORT]` of certificates each, beside the system's.
    pub certificates: Vec<PathBuf>,
    /// Where Docker's `config.json` is.
    pub docker_config: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Daemon {
    #[serde(default)]
    registry_mirrors: Vec<String>,
    #[serde(default)]
    insecure_registries: Vec<String>,
}

impl Settings {
    /// As the environment has it: `DOCKER_CONFIG`, else `~/.docker`; the system's `daemon.json` and the user's; and
    /// `certs.d` of rootless Docker and of Podman.
    pub fn from_env() -> Result<Self> {
        let home = env::var_os("HOME").map(PathBuf::from);
        let docker = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let docker = docker.or_else(|| home.as_ref().map(|home| home.join(".docker")));
        let config = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.or_else(|| home.map(|home| home.join(".config")));
        let certificates = |config: &PathBuf| CERTIFICATES.map(|folder| config.join(folder)).to_vec();
        let mut settings = Self {
            docker_config: docker.map(|folder| folder.join("config.json")),
            certificates: config.as_ref().map(certificates).unwrap_or_default(),
            ..Self::default()
        };
        let own = config.map(|config| config.join(OF_A_USER));
        for file in own.as_deref().into_iter().chain([Path::new(SYSTEM)]) {
            settings.read(file)?;
        }
        Ok(settings)
    }

    /// Adds what a `daemon.json` says, if it is there.
    fn read(&mut self, file: &Path) -> Result<()> {
        let what = || format!("cannot use {}", file.display());
        let text = match fs::read(file) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            // What the system's file says to whoever may not read it, he need not heed.
            Err(e) if e.kind() == ErrorKind::PermissionDenied && file == Path::new(SYSTEM) => return Ok(()),
            text => text.during(what())?,
        };
        let daemon: Daemon =
            serde_json::from_slice(&text).map_err(|e| ImageError::invalid(what()).because(e))?;
        for mirror in &daemon.registry_mirrors {
            mirror_host(mirror).map_err(|e| e.within(what()))?;
        }
        self.mirrors.extend(daemon.registry_mirrors);
        self.insecure.extend(daemon.insecure_registries);
        Ok(())
    }

    /// Whether a registry, `HOST[:PORT]`, may be without TLS, or with anybody's certificate.
    pub(super) fn is_insecure(&self, domain: &str) -> bool {
        let address = host(domain).parse::<IpAddr>().ok();
        self.insecure.iter().any(|named| {
            named == domain || address.is_some_and(|address| network(named).is_some_and(|n| n.has(address)))
        })
    }
}

/// A mirror's host with its port, and whether it has TLS.
pub(super) fn mirror_host(url: &str) -> Result<(&str, bool)> {
    let (rest, tls) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (rest, true),
        (_, Some(rest)) => (rest, false),
        _ => ("", false),
    };
    let host = rest.strip_suffix('/').unwrap_or(rest);
    let bad = |c: char| c.is_whitespace() || c.is_control() || "/?#@\\".contains(c);
    if host.is_empty() || host.contains(bad) {
        let what = format!("the mirror `{}` is not http[s]://HOST[:PORT]", url.escape_debug());
        return Err(ImageError::new(Kind::Invalid, what));
    }
    Ok((host, tls))
}

/// Without its port and without brackets.
pub(super) fn host(domain: &str) -> &str {
    match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => domain.split_once(':').map_or(domain, |(host, _)| host),
    }
}

/// Addresses that begin alike.
struct Network(IpAddr, u32);

fn network(text: &str) -> Option<Network> {
    let (address, bits) = text.split_once('/')?;
    Some(Network(address.parse().ok()?, bits.parse().ok()?))
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        match (self.0, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                self.1 <= u32::BITS && differ.leading_zeros() >= self.1
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                self.1 <= u128::BITS && differ.leading_zeros() >= self.1
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::NamedTempFile;

    fn of(text: &str) -> Result<Settings> {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let mut settings = Settings::default();
        settings.read(file.path()).map(|()| settings)
    }

    #[test]
    fn dockers_file_names_mirrors_and_those_without_tls() {
        let settings = of(r#"{"registry-mirrors": ["https://m:5000/", "http://n"], "debug": true,
            "insecure-registries": ["old.example:80", "10.1.0.0/16", "fd00::/8"]}"#)
        .unwrap();
        assert_eq!(settings.mirrors, ["https://m:5000/", "http://n"]);
        assert_eq!(mirror_host("https://m:5000/").unwrap(), ("m:5000", true));
        assert_eq!(mirror_host("http://n").unwrap(), ("n", false));
        for domain in ["old.example:80", "10.1.2.3", "10.1.2.3:5000", "[fd12::1]:5000"] {
            assert!(settings.is_insecure(domain), "{domain}");
        }
        for domain in ["old.example", "10.2.0.1", "[fe80::1]", "other:80"] {
            assert!(!settings.is_insecure(domain), "{domain}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        for bad in [
            "",
            r#"{"registry-mirrors": "https://m"}"#,
            r#"{"registry-mirrors": ["m"]}"#,
            r#"{"registry-mirrors": ["https://u@h"]}"#,
        ] {
            let error = of(bad).unwrap_err();
            assert!(error.to_string().contains("cannot use /"), "{bad}: {error}");
        }
        assert!(Settings::default().read(Path::new("/no/such")).is_ok());
    }
}
