// SPDX-License-Identifier: Apache-2.0
//! Names of images: one that is taken means the same however it is written, whole or short, and has nothing in it that a
//! path, a URL or a terminal would take for something else.

use arbitrary::{Arbitrary, Unstructured};
use isopod_image::{Digest, Reference};

#[derive(Debug, Arbitrary)]
struct Name<'a> {
    domain: Option<Part<'a>>,
    path: Vec<Part<'a>>,
    tag: Option<Part<'a>>,
    digest: Option<&'a [u8]>,
}

#[derive(Debug, Arbitrary)]
enum Part<'a> {
    Usual(u8),
    Any(&'a str),
}

const USUAL: [&str; 16] = [
    "docker.io",
    "library",
    "index.docker.io",
    "localhost",
    "ghcr.io",
    "127.0.0.1:5000",
    "[::1]:1",
    "a",
    "b-c",
    "d__e",
    "f.g",
    "latest",
    "1.0",
    "Upper",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "x",
];

impl Part<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Usual(n) => USUAL[usize::from(*n) % USUAL.len()],
            Self::Any(text) => text,
        }
    }
}

pub(crate) fn names(bytes: &[u8]) {
    let Ok(name) = Unstructured::new(bytes).arbitrary::<Name<'_>>() else { return };
    let parts: Vec<_> = name.domain.iter().chain(&name.path).map(Part::text).collect();
    let mut text = parts.join("/");
    if let Some(tag) = &name.tag {
        text = format!("{text}:{}", tag.text());
    }
    if let Some(digest) = name.digest {
        text = format!("{text}@{}", Digest::of(digest));
    }
    let Ok(reference) = text.parse::<Reference>() else { return };
    let whole = reference.to_string();
    assert_eq!(whole.parse::<Reference>().as_ref().ok(), Some(&reference), "{text}");
    assert!(whole.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:/@[]".contains(&b)), "{whole}");
    assert!(!whole.contains("..") && !whole.contains("//"), "{whole}");
    let short = reference.familiar();
    let again = short.parse::<Reference>().expect("a short name is a name");
    let place = |reference: &Reference| (reference.domain().to_owned(), reference.path().to_owned());
    assert_eq!(place(&again), place(&reference), "{whole} as {short}");
    assert_eq!(again.tag(), reference.tag(), "{whole} as {short}");
}
