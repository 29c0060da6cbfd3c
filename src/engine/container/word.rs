// SPDX-License-Identifier: Apache-2.0
//! Arguments and variables: bytes to the kernel, text to nearly everybody else.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Bytes without a NUL. In a record they are a text if they can be, else a list of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word(Vec<u8>);

impl Word {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        (!bytes.contains(&0)).then_some(Self(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// For people to read.
    pub fn shown(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

/// From what the operating system passed us, which has no NULs.
impl From<OsString> for Word {
    fn from(text: OsString) -> Self {
        Self(text.into_vec())
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Bytes(Vec<u8>),
        }
        let bytes = match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into_bytes(),
            Form::Bytes(bytes) => bytes,
        };
        Self::new(bytes).ok_or_else(|| D::Error::custom("a NUL byte"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_word_survives_being_written_down(bytes in prop::collection::vec(1u8.., 0..40)) {
            let word = Word::new(bytes).unwrap();
            let text = serde_json::to_string(&word).unwrap();
            prop_assert_eq!(serde_json::from_str::<Word>(&text).unwrap(), word);
        }
    }

    #[test]
    fn text_is_written_as_text() {
        assert_eq!(serde_json::to_string(&Word::new("sh").unwrap()).unwrap(), "\"sh\"");
        assert!(Word::new("a\0b").is_none());
    }
}
