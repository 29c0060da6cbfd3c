// SPDX-License-Identifier: Apache-2.0
//! Becoming known to a registry, and being forgotten: credentials are tried, then kept where Docker keeps them.

use super::auth::Auth;
use super::credentials::{self, Credentials, Kept};
use super::endpoint::Endpoint;
use super::http::{Asked, Trouble};
use super::settings::Settings;
use crate::error::Result;

/// Tries a name and a password at a registry, and keeps them if it takes them. Says where they are.
pub fn log_in(domain: &str, name: &str, secret: &str, settings: &Settings) -> Result<Kept> {
    let (origin, challenge, http) = Endpoint::of(domain, settings)?.ping()?;
    let credentials = Credentials { name: name.to_owned(), secret: secret.to_owned() };
    let auth = Auth::trying(challenge, credentials.clone(), &origin);
    match http.tell(&format!("{origin}/v2/"), &auth, Asked::default())?.status() {
        200 => credentials::keep(domain, &credentials, settings),
        status => Err(Trouble::Status(status).explain(format_args!("cannot log in at {domain}"))),
    }
}

/// Forgets the credentials for a registry. Says whether there were any.
pub fn log_out(domain: &str, settings: &Settings) -> Result<bool> {
    credentials::forget(domain, settings)
}
