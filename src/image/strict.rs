// SPDX-License-Identifier: Apache-2.0
//! JSON that means one thing: no key twice, nothing before or after it, not too long, not too deep.
//!
//! Two readers that disagree about a document can be shown two images under one digest; so what could be read in two ways is
//! not read at all. (The depth limit is `serde_json`'s own, 128.)

use crate::error::{ImageError, Result};
use crate::limits::DOCUMENT_MAX;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as DeError, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt::{Formatter, Result as FmtResult};

pub(crate) fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    if bytes.len() as u64 > DOCUMENT_MAX {
        return Err(ImageError::invalid(format_args!(
            "{what} has more than the {DOCUMENT_MAX} bytes allowed"
        )));
    }
    let bad = |e: serde_json::Error| {
        ImageError::invalid(format_args!("{what} is not the JSON it should be")).because(e)
    };
    serde_json::from_slice::<Unambiguous>(bytes).map_err(bad)?;
    serde_json::from_slice(bytes).map_err(bad)
}

/// Any value whose objects have each key once.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk)
    }
}

struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = Unambiguous;

    fn expecting(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }
    fn visit_str<E>(self, _: &str) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }
    fn visit_unit<E>(self) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unambiguous, A::Error> {
        while seq.next_element::<Unambiguous>()?.is_some() {}
        Ok(Unambiguous)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unambiguous, A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Unambiguous>()?;
            if let Some(key) = seen.replace(key) {
                return Err(A::Error::custom(format_args!("the key {key:?} twice")));
            }
        }
        Ok(Unambiguous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn parses(text: &[u8]) -> bool {
        parse::<Value>("it", text).is_ok()
    }

    #[test]
    fn a_document_that_could_be_read_in_two_ways_is_not_read() {
        assert!(parses(br#"{"a": {"b": 1}, "c": {"b": [1, 2.5, null, true, "x"]}}"#));
        assert!(!parses(br#"{"a": 1, "a": 1}"#));
        assert!(!parses(br#"[{"x": [{"a": 1, "b": 2, "a": 3}]}]"#));
        assert!(!parses(b"\xef\xbb\xbf{}"));
        assert!(!parses(b"{} {}"));
        assert!(!parses(b"{"));
        assert!(!parses("[".repeat(100_000).as_bytes()));
        assert!(!parses(&vec![b' '; 5 << 20]));
    }
}
