// SPDX-License-Identifier: Apache-2.0
//! Names and passwords, where Docker keeps them: `config.json`, or a helper it names (docker-credential-helpers).

use super::endpoint::Settings;
use crate::error::{ImageError, Kind, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};
use std::fs;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

/// What Docker calls its hub there.
const HUB: &str = "https://index.docker.io/v1/";

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) name: String,
    pub(super) secret: String,
}

impl Debug for Credentials {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// Those for a registry, if there are any.
pub(super) fn find(domain: &str, settings: &Settings) -> Result<Option<Credentials>> {
    let Some(path) = &settings.docker_config else { return Ok(None) };
    let unusable =
        |why: &dyn fmt::Display| ImageError::invalid(format_args!("cannot use {}: {why}", path.display()));
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unusable(&e)),
    };
    let config: Config = serde_json::from_slice(&text).map_err(|e| unusable(&e))?;
    let names = names(domain);
    let named = names.iter().find_map(|name| config.cred_helpers.get(name));
    if let Some(helper) = named.or(config.creds_store.as_ref()) {
        for name in &names {
            if let Some(found) = ask(helper, name)? {
                return Ok(Some(found));
            }
        }
    }
    names
        .iter()
        .find_map(|name| config.auths.get(name))
        .map_or(Ok(None), |entry| entry.credentials().map_err(|why| unusable(&why)))
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        if let (Some(name), Some(secret)) = (&self.username, &self.password) {
            return Ok(Some(Credentials { name: name.clone(), secret: secret.clone() }));
        }
        let Some(auth) = self.auth.as_deref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let decoded = BASE64_STANDARD.decode(auth).map_err(|_| "an `auth` is not base64")?;
        let text = String::from_utf8(decoded).map_err(|_| "an `auth` is not text")?;
        let (name, secret) = text.split_once(':').ok_or("an `auth` has no colon")?;
        let secret = secret.trim_end_matches('\0');
        Ok(Some(Credentials { name: name.to_owned(), secret: secret.to_owned() }))
    }
}

/// The ways a registry is written there.
fn names(domain: &str) -> Vec<String> {
    let mut names = vec![domain.to_owned(), format!("https://{domain}"), format!("http://{domain}")];
    if domain == "docker.io" {
        names.insert(0, HUB.to_owned());
    }
    names
}

/// Asks a helper, by its protocol: the registry on its stdin, JSON on its stdout.
fn ask(helper: &str, registry: &str) -> Result<Option<Credentials>> {
    let program = format!("docker-credential-{helper}");
    let failed = |why: &dyn fmt::Display| {
        ImageError::new(Kind::Io, format_args!("cannot get credentials from {program}: {why}"))
    };
    if helper.contains('/') {
        return Err(failed(&"its name has a slash"));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed(&e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has all it wants before it has read this is free to.
        let _ = stdin.write_all(registry.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(&e))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        // So all helpers say that they have none.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(&output.status));
    }
    let helped: Helped =
        serde_json::from_slice(&output.stdout).map_err(|_| failed(&"it does not answer as a helper does"))?;
    Ok(Some(Credentials { name: helped.username, secret: helped.secret }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(domain: &str, config: &str) -> Result<Option<Credentials>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, config).unwrap();
        find(domain, &Settings { docker_config: Some(path), ..Settings::default() })
    }

    fn known(name: &str, secret: &str) -> Option<Credentials> {
        Some(Credentials { name: name.to_owned(), secret: secret.to_owned() })
    }

    #[test]
    fn a_registrys_own_entry_is_taken_and_no_others() {
        let config = r#"{"auths":{"localhost:5000":{"auth":"dXNlcjpwYTpzcw=="},
                         "https://index.docker.io/v1/":{"username":"a","password":"b"},"empty":{}}}"#;
        assert_eq!(found("localhost:5000", config).unwrap(), known("user", "pa:ss"));
        assert_eq!(found("docker.io", config).unwrap(), known("a", "b"));
        assert_eq!(found("localhost", config).unwrap(), None);
        assert_eq!(found("empty", config).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_used_is_said_without_its_secrets() {
        for config in ["{", r#"{"auths":{"x":{"auth":"c2VjcmV0"}}}"#, r#"{"auths":{"x":{"auth":"!"}}}"#] {
            let said = found("x", config).unwrap_err().to_string();
            assert!(!said.contains("secret") && !said.contains("c2V"), "{said}");
        }
        assert!(!format!("{:?}", known("n", "hidden")).contains("hidden"));
    }

    #[test]
    fn a_helper_that_is_not_there_is_an_error() {
        let said = found("x", r#"{"credsStore":"is-not-there"}"#).unwrap_err().to_string();
        assert!(said.contains("docker-credential-is-not-there"), "{said}");
        assert!(found("x", r#"{"credsStore":"../../bin/sh"}"#).is_err());
    }
}
