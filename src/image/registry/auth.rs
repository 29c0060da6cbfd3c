// SPDX-License-Identifier: Apache-2.0
//! What a registry wants to see before it gives anything: nothing, a name and a password (RFC 7617), or a token that
//! somebody else gives for them (the distribution project's token authentication).

use super::credentials::{self, Credentials};
use super::http::{self, Asked, Http};
use super::settings::Settings;
use crate::error::{ImageError, Kind, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use std::fmt::{self, Debug, Display, Formatter};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tokens are some kilobytes.
const TOKEN_MAX: u64 = 64 << 10;

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    None,
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// The best of those in `WWW-Authenticate` headers (RFC 9110, section 11.6.1); the first of each header counts.
    pub(super) fn choose(headers: &[String]) -> Result<Self> {
        let all: Vec<_> = headers.iter().filter_map(|header| Self::parse(header)).collect();
        let bearer = all.iter().find(|challenge| matches!(challenge, Self::Bearer { .. }));
        bearer.or(all.first()).cloned().ok_or_else(|| {
            ImageError::new(
                Kind::Unsupported,
                "the registry wants to be shown something that is not known here",
            )
        })
    }

    fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let values = parameters(rest);
        let value = |name: &str| values.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        Some(Self::Bearer { realm: value("realm")?, service: value("service") })
    }
}

/// Realm and service of a challenge for a token.
#[cfg(feature = "test-utils")]
pub fn token_challenge(header: &str) -> Option<(String, Option<String>)> {
    match Challenge::parse(header)? {
        Challenge::Bearer { realm, service } => Some((realm, service)),
        _ => None,
    }
}

/// `key="value", key=value`; what is not so is where it ends.
fn parameters(mut rest: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut chars = quoted.char_indices();
                let end = loop {
                    match chars.next() {
                        Some((_, '\\')) => value.extend(chars.next().map(|(_, c)| c)),
                        Some((at, '"')) => break at + 1,
                        Some((_, c)) => value.push(c),
                        None => return found,
                    }
                };
                (value, &quoted[end..])
            }
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        found.push((key.trim_matches([' ', ',']).to_ascii_lowercase(), value));
        rest = after.trim_start_matches([' ', ',']);
    }
    found
}

/// How requests to one repository are vouched for.
pub(crate) struct Auth {
    challenge: Challenge,
    credentials: Option<Credentials>,
    /// What a token is to be for; only that somebody is known, if there is nothing.
    scopes: Vec<Scope>,
    /// The registry's scheme and host.
    origin: String,
    token: Mutex<Option<String>>,
    /// Why there are no credentials, if there should be.
    failed: Option<ImageError>,
}

impl Debug for Auth {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // Neither a password nor a token is for anybody's eyes.
        f.debug_struct("Auth").field("challenge", &self.challenge).finish_non_exhaustive()
    }
}

/// What is to be done with a repository: "pull", or "pull,push".
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) repository: String,
    pub(super) actions: &'static str,
}

impl Display for Scope {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "repository:{}:{}", self.repository, self.actions)
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Auth {
    /// For what is meant to be done, with the credentials for `domain`.
    pub(super) fn new(
        challenge: Challenge,
        (domain, scopes): (&str, Vec<Scope>),
        origin: &str,
        settings: &Settings,
    ) -> Self {
        let found = match challenge {
            Challenge::None => Ok(None),
            _ => credentials::find(domain, settings),
        };
        let (credentials, failed) = match found {
            Ok(credentials) => (credentials, None),
            Err(error) => (None, Some(error)),
        };
        Self { challenge, credentials, scopes, origin: origin.to_owned(), token: Mutex::default(), failed }
    }

    /// For credentials that are to be tried.
    pub(super) fn trying(challenge: Challenge, credentials: Credentials, origin: &str) -> Self {
        Self {
            challenge,
            credentials: Some(credentials),
            scopes: Vec::new(),
            origin: origin.to_owned(),
            token: Mutex::default(),
            failed: None,
        }
    }

    /// The `Authorization` of a request to the registry itself.
    pub(super) fn header(&self, http: &Http) -> Result<Option<String>> {
        match &self.challenge {
            Challenge::None => Ok(None),
            Challenge::Basic => Ok(self.credentials.as_ref().map(basic)),
            Challenge::Bearer { realm, service } => {
                // Whoever needs one meanwhile waits for this one.
                let mut token = self.token();
                if token.is_none() {
                    *token = Some(self.fetch(http, realm, service.as_deref())?);
                }
                Ok(token.as_ref().map(|token| format!("Bearer {token}")))
            }
        }
    }

    /// Whether what it is shown is meant for who would get it there.
    pub(super) fn is_for(&self, url: &str) -> bool {
        http::origin(url).is_some() && http::origin(url) == http::origin(&self.origin)
    }

    /// The registry did not take what it was shown. Says whether another token is worth a try; somebody else may have got
    /// one meanwhile.
    pub(super) fn refused(&self, shown: Option<&str>) -> bool {
        let Some(shown) = shown.and_then(|header| header.strip_prefix("Bearer ")) else { return false };
        let mut token = self.token();
        if token.as_deref() == Some(shown) {
            *token = None;
        }
        true
    }

    fn token(&self) -> MutexGuard<'_, Option<String>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn explain(&self, status: u16, registry: &str) -> ImageError {
        let what = match (&self.credentials, status) {
            (None, _) => {
                format!("{registry} gives this to those it knows, and there are no credentials for it here")
            }
            (Some(_), 401) => format!("{registry} does not take the credentials there are for it here"),
            (Some(_), _) => format!("{registry} knows who asks and does not allow it"),
        };
        let error = ImageError::new(Kind::Denied, what);
        match &self.failed {
            Some(failed) => error.because(io::Error::other(failed.to_string())),
            None => error,
        }
    }

    fn fetch(&self, http: &Http, realm: &str, service: Option<&str>) -> Result<String> {
        let failed =
            |why: &str| ImageError::invalid(format_args!("the registry names {realm:?} for tokens: {why}"));
        if !realm.starts_with("https://")
            && (self.origin.starts_with("https://") || !realm.starts_with("http://"))
        {
            return Err(failed("no address to send a password to"));
        }
        let mut url = format!("{realm}{}", if realm.contains('?') { '&' } else { '?' });
        let service = service.map(|service| ("service", service.to_owned()));
        let scopes = self.scopes.iter().map(|scope| ("scope", scope.to_string()));
        for (name, value) in service.into_iter().chain(scopes) {
            url.push_str(&format!("{name}={}&", http::escaped(&value)));
        }
        url.pop();
        let authorization = self.credentials.as_ref().map(basic);
        let asked = Asked { authorization: authorization.as_deref(), ..Asked::default() };
        let response = http.ask(&url, asked).map_err(|trouble| trouble.explain("cannot get a token"))?;
        match response.status() {
            200 => {}
            status @ (401 | 403) => return Err(self.explain(status, realm)),
            status => return Err(failed(&format!("it answers with status {status}"))),
        }
        let whole = |e| ImageError::new(Kind::Network, "the token did not come whole").because(e);
        let bytes = response.document(TOKEN_MAX).map_err(whole)?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| failed("what it gives is no token"))?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        let printable = |token: &String| token.bytes().all(|b| b.is_ascii_graphic());
        token.filter(printable).ok_or_else(|| failed("what it gives is no token"))
    }
}

fn basic(credentials: &Credentials) -> String {
    let text = format!("{}:{}", credentials.name, credentials.secret);
    format!("Basic {}", BASE64_STANDARD.encode(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_understood_as_registries_write_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
        let quoted = r#"bearer realm="https://a/\"t\"", service=plain , error="invalid_token""#;
        let bearer = |realm: &str, service: &str| Challenge::Bearer {
            realm: realm.to_owned(),
            service: Some(service.to_owned()),
        };
        let choose = |headers: &[&str]| {
            Challenge::choose(&headers.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(choose(&[hub]).unwrap(), bearer("https://auth.docker.io/token", "registry.docker.io"));
        assert_eq!(choose(&["Basic realm=\"x\"", quoted]).unwrap(), bearer("https://a/\"t\"", "plain"));
        assert_eq!(choose(&["Basic realm=\"Registry Realm\""]).unwrap(), Challenge::Basic);
        for bad in ["", "Bearer", "Bearer realm=\"open", "Negotiate", "Bearer service=\"x\""] {
            assert!(choose(&[bad]).is_err(), "{bad}");
        }
    }
}
