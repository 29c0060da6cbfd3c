// SPDX-License-Identifier: Apache-2.0
//! Where a registry is, and how it is spoken to.
//!
//! `docker.io` is at `registry-1.docker.io`. A registry is spoken to by TLS, with the system's certificates and those in
//! `certs.d/HOST[:PORT]/*.crt`, where Docker and Podman keep them: in `/etc/docker` and `/etc/containers`, and in the same
//! folders of `~/.config`. One on a loopback address that has none of its own may answer without TLS instead, as with
//! Docker, and so may those that were named insecure.

use super::auth::Challenge;
use super::http::{Asked, Http, Trouble};
use super::settings::{Settings, host, mirror_host};
use crate::error::{ImageError, Kind, Result};
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

const CERTIFICATES: [&str; 2] = ["/etc/docker/certs.d", "/etc/containers/certs.d"];

#[derive(Debug)]
pub(super) struct Endpoint {
    host: String,
    /// PEM texts to trust, beside the system's.
    certificates: Vec<Vec<u8>>,
    insecure: bool,
}

impl Endpoint {
    pub(super) fn of(domain: &str, settings: &Settings) -> Result<Self> {
        let host = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
        let certificates = certificates(domain, settings)?;
        let named = settings.is_insecure(domain);
        let insecure = named || (is_loopback(domain) && certificates.is_empty());
        Ok(Self { host: host.to_owned(), certificates, insecure })
    }

    /// One that has what docker.io has.
    pub(super) fn mirror(url: &str, settings: &Settings) -> Result<Self> {
        let (host, tls) = mirror_host(url)?;
        let endpoint = Self::of(host, settings)?;
        Ok(Self { insecure: endpoint.insecure || !tls, ..endpoint })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Asks whether there is a registry, and what it wants to see of us. Gives `scheme://host` with it.
    pub(super) fn ping(&self) -> Result<(String, Challenge, Http)> {
        let trusting = self.insecure.then_some(self.host.as_str());
        let http = Http::new(&self.certificates, trusting, is_loopback(&self.host))?;
        let at = |scheme: &str| format!("{scheme}://{}", self.host);
        let ask = |origin: String| {
            http.ask(&format!("{origin}/v2/"), Asked::default()).map(|response| (origin, response))
        };
        // Whether somebody speaks TLS there is asked once; who does, as often as anything.
        let plain = || match http.ask_once(&format!("{}/v2/", at("https")), Asked::default()) {
            Err(Trouble::Connection(_)) => true,
            Ok(_) | Err(_) => false,
        };
        let answer = if self.insecure && plain() { ask(at("http")) } else { ask(at("https")) };
        let (origin, response) = answer
            .map_err(|trouble| trouble.explain(format_args!("cannot reach the registry {}", self.host)))?;
        match response.status() {
            200 => Ok((origin, Challenge::None, http)),
            401 => {
                let challenges = response.headers("www-authenticate");
                Ok((origin, Challenge::choose(&challenges)?, http))
            }
            status => Err(ImageError::new(
                Kind::Unsupported,
                format_args!("{} is no registry of the second version (status {status} at /v2/)", self.host),
            )),
        }
    }
}

fn certificates(domain: &str, settings: &Settings) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let folders = CERTIFICATES.iter().map(PathBuf::from).chain(settings.certificates.iter().cloned());
    for folder in folders.map(|folder| folder.join(domain)) {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.extension().is_some_and(|extension| extension == "crt") {
                let text = fs::read(&path).map_err(|e| {
                    ImageError::new(Kind::Io, format_args!("cannot read {}", path.display())).because(e)
                })?;
                found.push(text);
            }
        }
    }
    Ok(found)
}

fn is_loopback(domain: &str) -> bool {
    let host = host(domain);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_need_no_tls_and_others_do() {
        for domain in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.3.4.5", "[::1]:5000"] {
            assert!(Endpoint::of(domain, &Settings::default()).unwrap().insecure, "{domain}");
        }
        for domain in ["docker.io", "10.0.0.1:5000", "127.0.0.1.example.com", "[fe80::1]:5000"] {
            assert!(!Endpoint::of(domain, &Settings::default()).unwrap().insecure, "{domain}");
        }
    }

    #[test]
    fn a_registry_with_certificates_of_its_own_is_spoken_to_by_tls() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("localhost:5000");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("ca.crt"), "text").unwrap();
        let settings = Settings { certificates: vec![folder.path().to_owned()], ..Settings::default() };
        let endpoint = Endpoint::of("localhost:5000", &settings).unwrap();
        assert_eq!((endpoint.insecure, endpoint.certificates), (false, vec![b"text".to_vec()]));
        let named = Settings { insecure: vec!["localhost:5000".to_owned()], ..settings };
        assert!(Endpoint::of("localhost:5000", &named).unwrap().insecure);
    }

    #[test]
    fn docker_io_is_elsewhere() {
        assert_eq!(Endpoint::of("docker.io", &Settings::default()).unwrap().host, "registry-1.docker.io");
    }
}
