// SPDX-License-Identifier: Apache-2.0
//! Names and ids: the only texts of a user that become file names, and the one parser that lets them.

use crate::hex::hex;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Longest name, in bytes.
pub const MAX: usize = 128;

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}`: never empty, hidden, `.`, `..` or with a slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{}` is not a name: 1 to {MAX} letters, digits, `_`, `.` and `-`, the first a letter or digit", .0.escape_debug())]
pub struct BadName(String);

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if first && rest && text.len() <= MAX { Ok(Self(text.to_owned())) } else { Err(BadName(shown(text))) }
    }
}

/// As much of a bad name as is worth showing.
fn shown(text: &str) -> String {
    text.chars().take(MAX).collect()
}

impl TryFrom<String> for Name {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl Name {
    /// A name of an adjective and a creature, by the dice.
    pub fn random() -> Self {
        let [a, b, c, d] = random();
        let pick = |words: &[&'static str], dice: [u8; 2]| {
            words[usize::from(u16::from_ne_bytes(dice)) % words.len()]
        };
        Self(format!("{}_{}", pick(ADJECTIVES, [a, b]), pick(CREATURES, [c, d])))
    }

    /// The same with a number behind it, for when the first is taken.
    #[must_use]
    pub fn numbered(&self) -> Self {
        let [n] = random();
        Self(format!("{}{n}", self.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 256 random bits in hex, as Docker's are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

const ID_BYTES: usize = 32;
const SHORT: usize = 12;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a container's id")]
pub struct BadId;

impl Id {
    pub fn random() -> Self {
        Self(hex(random::<ID_BYTES>()))
    }

    pub fn short(&self) -> &str {
        &self.0[..SHORT]
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Id {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        let hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex && text.len() == 2 * ID_BYTES { Ok(Self(text)) } else { Err(BadId) }
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// From the kernel's generator; it has been seeded long before anybody runs a container.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(error) => panic!("the kernel has no random numbers: {error}"),
        }
    }
    bytes
}

const ADJECTIVES: &[&str] = &[
    "amber", "brave", "brisk", "calm", "candid", "clever", "copper", "crisp", "curious", "daring", "dapper",
    "deft", "eager", "early", "earnest", "fair", "fond", "frank", "gentle", "glad", "golden", "hardy",
    "honest", "humble", "jolly", "keen", "kind", "lively", "lucid", "lucky", "merry", "mild", "modest",
    "neat", "nimble", "noble", "patient", "plain", "polite", "proud", "quick", "quiet", "ready", "rustic",
    "sandy", "serene", "sharp", "silent", "silver", "simple", "sober", "steady", "still", "subtle", "sunny",
    "tidy", "tranquil", "upbeat", "vivid", "warm", "wise", "witty", "young", "zesty",
];

const CREATURES: &[&str] = &[
    "adder",
    "amphipod",
    "auk",
    "badger",
    "barnacle",
    "beetle",
    "bittern",
    "bream",
    "bunting",
    "cicada",
    "cod",
    "coot",
    "crab",
    "cricket",
    "curlew",
    "dace",
    "dipper",
    "dunlin",
    "eel",
    "egret",
    "falcon",
    "finch",
    "gannet",
    "gecko",
    "grebe",
    "hare",
    "heron",
    "hobby",
    "ibis",
    "isopod",
    "jay",
    "kelpie",
    "kite",
    "krill",
    "lapwing",
    "limpet",
    "linnet",
    "lobster",
    "marten",
    "merlin",
    "mussel",
    "newt",
    "otter",
    "oyster",
    "perch",
    "pike",
    "pipit",
    "plover",
    "prawn",
    "puffin",
    "raven",
    "redshank",
    "robin",
    "salmon",
    "shrew",
    "shrimp",
    "siskin",
    "skink",
    "snipe",
    "sole",
    "stoat",
    "swift",
    "tern",
    "trout",
    "turnstone",
    "vole",
    "wagtail",
    "weevil",
    "whelk",
    "woodlouse",
    "wren",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_a_name_is_one_plain_file_name(text in any::<String>()) {
            if let Ok(name) = text.parse::<Name>() {
                prop_assert_eq!(name.as_str(), &text);
                prop_assert!(!text.is_empty() && text.len() <= 128 && !text.starts_with('.'));
                prop_assert!(text.bytes().all(|b| b.is_ascii_graphic() && b != b'/'));
            }
        }

        #[test]
        fn every_text_of_the_right_form_is_a_name(text in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}") {
            prop_assert!(text.parse::<Name>().is_ok());
        }

        #[test]
        fn whatever_is_an_id_is_hex(text in "[0-9a-f/.]{60,66}") {
            if let Ok(id) = Id::try_from(text.clone()) {
                prop_assert!(id.as_str().len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()));
            }
        }
    }

    #[test]
    fn the_longest_name_has_128_bytes() {
        assert!("a".repeat(128).parse::<Name>().is_ok());
        assert!("a".repeat(129).parse::<Name>().is_err());
    }

    #[test]
    fn ways_out_of_the_folder_are_no_names() {
        for text in ["", ".", "..", "../x", "a/b", "/", "-a", "_a", "a\0", "a b", "ä", "a\n"] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn dice_throw_names() {
        let name = Name::random();
        assert!(name.as_str().parse::<Name>().is_ok() && name.as_str().contains('_'));
        assert!(name.numbered().as_str().parse::<Name>().is_ok());
        assert!(ADJECTIVES.iter().chain(CREATURES).all(|word| word.bytes().all(|b| b.is_ascii_lowercase())));
    }

    #[test]
    fn no_two_ids_are_the_same() {
        assert_ne!(Id::random(), Id::random());
    }
}
