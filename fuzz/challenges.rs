// SPDX-License-Identifier: Apache-2.0
//! What registries ask for in `WWW-Authenticate`: a challenge is understood as it was meant, whatever stands around it.

use arbitrary::{Arbitrary, Unstructured};
use isopod_image::token_challenge;

#[derive(Debug, Arbitrary)]
enum Header<'a> {
    Token { realm: &'a str, service: Option<&'a str>, others: Vec<(Key, &'a str)>, first: bool },
    Any(&'a str),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Key {
    Scope,
    Error,
    Unknown,
}

impl Key {
    fn text(self) -> &'static str {
        match self {
            Self::Scope => "scope",
            Self::Error => "error",
            Self::Unknown => "x-unknown",
        }
    }
}

pub(crate) fn headers(bytes: &[u8]) {
    let Ok(header) = Unstructured::new(bytes).arbitrary::<Header<'_>>() else { return };
    match header {
        Header::Token { realm, service, others, first } => {
            let mut own = vec![format!("realm={}", quoted(realm))];
            own.extend(service.map(|service| format!("service={}", quoted(service))));
            let others: Vec<_> =
                others.iter().map(|(key, value)| format!("{}={}", key.text(), quoted(value))).collect();
            let all = if first { [own, others].concat() } else { [others, own].concat() };
            let understood = token_challenge(&format!("Bearer {}", all.join(",")));
            assert_eq!(understood, Some((realm.to_owned(), service.map(str::to_owned))));
        }
        Header::Any(text) => {
            // Nothing is understood that was not said.
            if let Some((realm, _)) = token_challenge(text) {
                assert!(realm.chars().all(|c| text.contains(c)), "{realm}");
            }
        }
    }
}

/// RFC 9110, section 5.6.4.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
