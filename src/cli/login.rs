// SPDX-License-Identifier: Apache-2.0
//! `isopod login` and `isopod logout`.

use super::{Outcome, output};
use clap::Args;
use isopod_engine::{Engine, EngineError, Kept, Kind};
use std::io::{Read, stdin};

const HUB: &str = "docker.io";
/// Longer passwords are not typed, and tokens are shorter.
const SECRET_MAX: u64 = 64 * 1024;

/// Log in at a registry, and keep the credentials where Docker does
#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// Host and port of the registry
    #[arg(value_name = "REGISTRY", default_value = HUB)]
    registry: String,
    /// User name; asked for on a terminal
    #[arg(short, long)]
    username: Option<String>,
    /// Password; asked for on a terminal, where others cannot see it in the list of processes
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Take the password from stdin
    #[arg(long)]
    password_stdin: bool,
}

/// Forget the credentials for a registry
#[derive(Debug, Args)]
pub(super) struct LogoutArgs {
    /// Host and port of the registry
    #[arg(value_name = "REGISTRY", default_value = HUB)]
    registry: String,
}

pub(super) fn login(args: &LoginArgs) -> Outcome {
    let missing = |what: &str, flag: &str| {
        EngineError::new(Kind::Invalid, format!("there is no {what}, and no terminal to ask for it"))
            .hint(format!("give it with {flag}"))
    };
    let name = match &args.username {
        Some(name) => name.clone(),
        None => output::ask("Username: ").ok_or_else(|| missing("user name", "-u"))?,
    };
    let secret = match (&args.password, args.password_stdin) {
        (Some(password), _) => {
            output::talk("warning: other users of this host may see a password that is given with -p");
            password.clone()
        }
        (None, true) => {
            let mut text = String::new();
            let read = stdin().lock().take(SECRET_MAX).read_to_string(&mut text);
            read.map_err(|e| EngineError::new(Kind::Io, "cannot read the password").because(e))?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        (None, false) => {
            output::ask_secret("Password: ").ok_or_else(|| missing("password", "--password-stdin"))?
        }
    };
    match Engine::log_in(&args.registry, &name, &secret)? {
        Kept::File(path) => {
            output::talk(&format!("warning: the password is kept as it is in {}", path.display()));
            output::talk("  hint:  a credential helper, named as `credsStore` there, keeps it better");
        }
        Kept::Helper(_) => {}
    }
    output::line("Login Succeeded")?;
    Ok(0)
}

pub(super) fn logout(args: &LogoutArgs) -> Outcome {
    let known = Engine::log_out(&args.registry)?;
    let what = if known { "Removed the credentials for" } else { "Not logged in at" };
    output::line(&format!("{what} {}", args.registry))?;
    Ok(0)
}
