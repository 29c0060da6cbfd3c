// SPDX-License-Identifier: Apache-2.0
//! Names and passwords, where Docker keeps them: `config.json`, or a helper it names (docker-credential-helpers).

use super::settings::Settings;
use crate::error::{ImageError, Kind, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display, Formatter};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

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

/// Where credentials went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// As they are, in this file.
    File(PathBuf),
    Helper(String),
}

/// Those for a registry, if there are any.
pub(super) fn find(domain: &str, settings: &Settings) -> Result<Option<Credentials>> {
    let Some(path) = &settings.docker_config else { return Ok(None) };
    let (_, config) = read(path)?;
    if let Some(helper) = config.helper(domain) {
        for name in names(domain) {
            if let Some(found) = ask(helper, &name)? {
                return Ok(Some(found));
            }
        }
    }
    let entry = names(domain).iter().find_map(|name| config.auths.get(name).map(Entry::credentials));
    entry.map_or(Ok(None), |found| found.map_err(|why| unusable(path, why)))
}

/// Keeps them with the helper for the registry, or in the file.
pub(super) fn keep(domain: &str, credentials: &Credentials, settings: &Settings) -> Result<Kept> {
    let path = place(settings)?;
    let (mut whole, config) = read(path)?;
    let name = names(domain).remove(0);
    if let Some(helper) = config.helper(domain) {
        let Credentials { name: username, secret } = credentials;
        let told = json!({"ServerURL": name, "Username": username, "Secret": secret}).to_string();
        return tell(helper, "store", &told).map(|_| Kept::Helper(helper.to_owned()));
    }
    let auth = BASE64_STANDARD.encode(format!("{}:{}", credentials.name, credentials.secret));
    let auths = whole.entry("auths").or_insert_with(|| json!({}));
    let auths = auths.as_object_mut().ok_or_else(|| unusable(path, "`auths` is no object"))?;
    auths.insert(name, json!({ "auth": auth }));
    write(path, &whole)?;
    Ok(Kept::File(path.to_owned()))
}

/// Forgets them, wherever they are. Says whether there were any.
pub(super) fn forget(domain: &str, settings: &Settings) -> Result<bool> {
    let path = place(settings)?;
    let known = find(domain, settings)?.is_some();
    let (mut whole, config) = read(path)?;
    let names = names(domain);
    if let Some(helper) = config.helper(domain) {
        for name in &names {
            // It says so if it has none; there is nothing to do about it.
            let _ = tell(helper, "erase", name);
        }
    }
    if let Some(auths) = whole.get_mut("auths").and_then(Value::as_object_mut)
        && names.iter().filter(|name| auths.remove(*name).is_some()).count() > 0
    {
        write(path, &whole)?;
    }
    Ok(known)
}

fn place(settings: &Settings) -> Result<&PathBuf> {
    let none = || ImageError::invalid("there is no home to keep credentials in: set DOCKER_CONFIG");
    settings.docker_config.as_ref().ok_or_else(none)
}

fn unusable(path: &Path, why: impl Display) -> ImageError {
    ImageError::invalid(format_args!("cannot use {}: {why}", path.display()))
}

/// All of the file, much of which is not ours, and what is of use here; both empty if there is none.
fn read(path: &Path) -> Result<(Map<String, Value>, Config)> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(<_>::default()),
        Err(e) => return Err(unusable(path, e)),
    };
    let whole = serde_json::from_slice(&text).map_err(|e| unusable(path, e))?;
    let config = serde_json::from_slice(&text).map_err(|e| unusable(path, e))?;
    Ok((whole, config))
}

/// In one step, and for its user alone.
fn write(path: &Path, whole: &Map<String, Value>) -> Result<()> {
    let fresh = path.with_extension(format!("new.{}", process::id()));
    let put = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(whole)?)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    put().map_err(|e| {
        let _ = fs::remove_file(&fresh);
        ImageError::new(Kind::Io, format_args!("cannot write {}", path.display())).because(e)
    })
}

impl Config {
    fn helper(&self, domain: &str) -> Option<&str> {
        let named = names(domain).iter().find_map(|name| self.cred_helpers.get(name));
        named.or(self.creds_store.as_ref()).map(String::as_str).filter(|helper| !helper.is_empty())
    }
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

/// What a helper has for a registry.
fn ask(helper: &str, registry: &str) -> Result<Option<Credentials>> {
    let Some(said) = tell(helper, "get", registry)? else { return Ok(None) };
    let helped: Helped =
        serde_json::from_slice(&said).map_err(|_| no_help(helper, "it does not answer as a helper does"))?;
    Ok(Some(Credentials { name: helped.username, secret: helped.secret }))
}

/// Has a helper do something, by its protocol: what it is told on its stdin, what it says on its stdout. `None` if it has
/// no credentials.
fn tell(helper: &str, verb: &str, told: &str) -> Result<Option<Vec<u8>>> {
    if helper.contains('/') {
        return Err(no_help(helper, "its name has a slash"));
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| no_help(helper, e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has all it wants before it has read this is free to.
        let _ = stdin.write_all(told.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| no_help(helper, e))?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    // So all helpers say that they have none.
    if String::from_utf8_lossy(&output.stdout).contains("credentials not found") {
        return Ok(None);
    }
    Err(no_help(helper, output.status))
}

fn no_help(helper: &str, why: impl Display) -> ImageError {
    ImageError::new(Kind::Io, format_args!("docker-credential-{helper} does not help: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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

    #[test]
    fn what_is_kept_is_found_and_forgotten_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker/config.json");
        let settings = Settings { docker_config: Some(path.clone()), ..Settings::default() };
        let credentials = known("me", "s:cret").unwrap();
        for domain in ["a:5000", "docker.io"] {
            assert_eq!(keep(domain, &credentials, &settings).unwrap(), Kept::File(path.clone()));
            assert_eq!(find(domain, &settings).unwrap(), known("me", "s:cret"));
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut whole: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert!(whole["auths"][HUB]["auth"].is_string(), "as Docker has it: {whole}");
        whole["psFormat"] = json!("x");
        fs::write(&path, whole.to_string()).unwrap();
        assert!(forget("a:5000", &settings).unwrap());
        assert!(!forget("a:5000", &settings).unwrap());
        assert_eq!(find("a:5000", &settings).unwrap(), None);
        assert_eq!(find("docker.io", &settings).unwrap(), known("me", "s:cret"));
        assert!(fs::read_to_string(&path).unwrap().contains("psFormat"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
