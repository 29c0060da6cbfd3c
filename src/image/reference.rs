// SPDX-License-Identifier: Apache-2.0
//! Names of images, as Docker understands them: `alpine` is `docker.io/library/alpine:latest`.
//!
//! ```text
//!   [domain[:port]/]path[:tag][@digest]
//! ```
//! The first part is a domain if it has a dot or a colon, is `localhost`, or has an upper-case letter; else it is the
//! first part of a path on docker.io (distribution/reference, `splitDockerDomain`).

use crate::digest::Digest;
use crate::error::{ImageError, Result};
use std::fmt::{Display, Formatter, Result as FmtResult};
use std::str::FromStr;

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Longest domain and path together.
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A whole reference: nothing left to default.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within its domain.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The name as a person would type it: without what goes without saying, unless it would then be another.
    pub fn familiar_name(&self) -> String {
        let short = match self.path.strip_prefix(OFFICIAL) {
            Some(rest) if !rest.contains('/') => rest,
            _ => &self.path,
        };
        let is_same = split_domain(short) == (DEFAULT_DOMAIN, short) && Digest::from_hex(short).is_none();
        if self.domain == DEFAULT_DOMAIN && is_same {
            return short.to_owned();
        }
        format!("{}/{}", self.domain, self.path)
    }

    /// The same with its tag, or else with its digest.
    pub fn familiar(&self) -> String {
        let name = self.familiar_name();
        match (&self.tag, &self.digest) {
            (Some(tag), _) => format!("{name}:{tag}"),
            (None, Some(digest)) => format!("{name}@{digest}"),
            (None, None) => name,
        }
    }
}

impl Display for Reference {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|why| {
            let shown: String = text.chars().take(100).flat_map(char::escape_debug).collect();
            ImageError::invalid(format_args!("`{shown}` is no image name: {why}"))
        })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            (rest, Some(digest.parse().map_err(|_| "its digest is not `sha256:` and 64 hexadecimal digits")?))
        }
        None => (text, None),
    };
    if Digest::from_hex(rest).is_some() {
        return Err("64 hexadecimal digits are an image's number, not its name");
    }
    let (domain, rest) = split_domain(rest);
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    check_domain(domain)?;
    check_path(path)?;
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let official = domain == DEFAULT_DOMAIN && !path.contains('/');
    let path = if official { format!("{OFFICIAL}{path}") } else { path.to_owned() };
    if domain.len() + 1 + path.len() > NAME_MAX {
        return Err("it is longer than 255 characters");
    }
    let tag = tag.or(if digest.is_none() { Some(DEFAULT_TAG) } else { None });
    Ok(Reference { domain: domain.to_owned(), path, tag: tag.map(str::to_owned), digest })
}

fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest)) if is_domain(first) => {
            (if first == "index.docker.io" { DEFAULT_DOMAIN } else { first }, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

fn is_domain(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase())
}

fn check_domain(domain: &str) -> Result<(), &'static str> {
    let bad = Err("its first part is no host name");
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.is_empty() || !address.chars().all(|c| c.is_ascii_hexdigit() || c == ':') {
                return bad;
            }
            ("", port.strip_prefix(':').or(if port.is_empty() { None } else { Some("x") }))
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return bad;
    }
    let good = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if domain.starts_with('[') || host.split('.').all(good) { Ok(()) } else { bad }
}

/// Lower-case parts, within which single `.`, one or two `_`, or any number of `-` separate letters and digits.
fn check_path(path: &str) -> Result<(), &'static str> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("a repository's name is in lower case");
    }
    let good = |part: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let separator = |s: &str| matches!(s, "." | "_" | "__") || s.chars().all(|c| c == '-');
        part.starts_with(plain) && part.ends_with(plain) && part.split(plain).all(separator)
    };
    if path.split('/').all(good) { Ok(()) } else { Err("it has characters a repository's name cannot have") }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good =
        tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-') && tag.len() <= TAG_MAX;
    if good { Ok(()) } else { Err("its tag has characters a tag cannot have, or too many") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Option<String> {
        text.parse::<Reference>().ok().map(|r| r.to_string())
    }

    #[test]
    fn what_is_left_out_is_what_docker_would_add() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (typed, meant) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/library/alpine", "docker.io/library/alpine:latest"),
            ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("Host/x", "Host/x:latest"),
            ("a--b/c__d/e.f", "docker.io/a--b/c__d/e.f:latest"),
            (&format!("alpine@{digest}"), &format!("docker.io/library/alpine@{digest}")),
            (&format!("alpine:1@{digest}"), &format!("docker.io/library/alpine:1@{digest}")),
        ] {
            assert_eq!(whole(typed).as_deref(), Some(meant), "{typed}");
        }
    }

    #[test]
    fn what_docker_would_not_take_is_refused() {
        let long = "a".repeat(256);
        let number = "a".repeat(64);
        for bad in [
            "",
            ":",
            "/",
            "a/",
            "/a",
            "a//b",
            "Alpine",
            "a:",
            "a:-x",
            "a b",
            "../x",
            "a/../b",
            "a/.b",
            "a..b",
            "a___b",
            "a_",
            "-a",
            "a@sha256:1",
            "a@",
            "é",
            "a\0",
            "host:x/y",
            "ho_st.x/y",
            "[::1/x",
            "[]:1/x",
            "[::1]x/y",
            "-h.x/y",
            &long,
            &number,
        ] {
            assert_eq!(whole(bad), None, "{bad}");
        }
        assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
    }

    #[test]
    fn a_name_is_shown_as_it_would_be_typed() {
        let hex = format!("docker.io/library/{}", "a".repeat(64));
        for (whole, short) in [
            ("docker.io/library/alpine", "alpine"),
            ("docker.io/u/a", "u/a"),
            ("ghcr.io/u/a", "ghcr.io/u/a"),
            // Shorter, these would be others.
            ("docker.io/library/u/a", "library/u/a"),
            ("docker.io/library/library/a", "library/library/a"),
            ("docker.io/ghcr.io/a", "docker.io/ghcr.io/a"),
            ("docker.io/localhost/a", "docker.io/localhost/a"),
            (&hex, &hex),
        ] {
            let name = whole.parse::<Reference>().unwrap();
            assert_eq!(name.familiar_name(), short);
            assert_eq!(short.parse::<Reference>().unwrap(), name);
        }
    }
}
