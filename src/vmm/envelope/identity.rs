// SPDX-License-Identifier: Apache-2.0
//! What an envelope was made for. A machine's state means something only to the same kernel on the same processor, with
//! the same devices: whoever is about to use one makes the identity he needs and asks for what differs.

use crate::config::Assist;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub kind: Kind,
    /// The version of isopod that made it.
    pub isopod: String,
    /// The SHA-256 of the guest's kernel, in hexadecimal digits.
    pub kernel: String,
    /// The SHA-256 of the guest's agent.
    pub agent: String,
    /// What is seen of the processor, in the words of who looks.
    pub cpu: String,
    pub vcpus: u8,
    pub memory_mib: u32,
    pub assist: Assist,
    /// The devices in the order of their places on the bus.
    pub devices: Vec<String>,
    /// The caller's own. Kept as it is, and not compared.
    pub extra: serde_json::Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A machine as any container may get it: started once, used often.
    Template,
    /// One container's machine.
    Snapshot,
}

/// The first thing in which an envelope is not what is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The field of [`Identity`].
    pub field: &'static str,
    /// What the envelope was made for.
    pub made_for: String,
    /// What is needed.
    pub needed: String,
}

/// Its name and how it is put into words.
type Field = (&'static str, fn(&Identity) -> String);

impl Identity {
    /// What `other`, which is needed, has that this has not. `extra` is the caller's to compare.
    pub fn mismatch(&self, other: &Self) -> Option<Mismatch> {
        let fields = Self::FIELDS.iter();
        let mut pairs = fields.map(|(field, text)| (*field, text(self), text(other)));
        let (field, made_for, needed) = pairs.find(|(_, made_for, needed)| made_for != needed)?;
        Some(Mismatch { field, made_for, needed })
    }

    /// Each field that is compared, in the order in which a difference tells most.
    const FIELDS: &[Field] = &[
        ("kind", |identity| identity.kind.to_string()),
        ("isopod", |identity| identity.isopod.clone()),
        ("kernel", |identity| identity.kernel.clone()),
        ("agent", |identity| identity.agent.clone()),
        ("cpu", |identity| identity.cpu.clone()),
        ("vcpus", |identity| identity.vcpus.to_string()),
        ("memory", |identity| format!("{} MiB", identity.memory_mib)),
        ("assist", |identity| assist(identity.assist).to_owned()),
        // As Rust writes a list, so that no name can be taken for two.
        ("devices", |identity| format!("{:?}", identity.devices)),
    ];
}

fn assist(assist: Assist) -> &'static str {
    match assist {
        Assist::None => "none",
        Assist::Emulated => "emulated",
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Template => "template",
            Self::Snapshot => "snapshot",
        })
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, made_for, needed } = self;
        write!(f, "it was made for {field} {}, this is {}", shown(made_for), shown(needed))
    }
}

/// As much of a text as a line has room for, and nothing in it that a terminal would obey. Of a digest the beginning
/// is enough.
fn shown(text: &str) -> String {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let most = if is_digest { 12 } else { 200 };
    let mut shown: String = text.chars().take(most).filter(|letter| !letter.is_control()).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::tests::identity;
    use serde_json::json;

    #[test]
    fn the_same_is_no_mismatch_and_extra_is_not_compared() {
        let other = Identity { extra: json!([1, 2]), ..identity() };
        assert_eq!(identity().mismatch(&identity()), None);
        assert_eq!(identity().mismatch(&other), None);
    }

    #[test]
    fn every_other_field_is_compared() {
        let changed = [
            Identity { kind: Kind::Snapshot, ..identity() },
            Identity { isopod: "9.9.9".into(), ..identity() },
            Identity { kernel: "0".into(), ..identity() },
            Identity { agent: "0".into(), ..identity() },
            Identity { cpu: "another".into(), ..identity() },
            Identity { vcpus: 16, ..identity() },
            Identity { memory_mib: 1024, ..identity() },
            Identity { assist: Assist::Emulated, ..identity() },
            Identity { devices: vec!["fs, rng".into()], ..identity() },
        ];
        let fields: Vec<_> =
            changed.iter().map(|other| identity().mismatch(other).map(|found| found.field)).collect();
        let expected: Vec<_> = Identity::FIELDS.iter().map(|(field, _)| Some(*field)).collect();
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_mismatch_names_the_first_difference_and_the_beginning_of_digests() {
        let made = Identity { kernel: "ab".repeat(32), ..identity() };
        let needed = Identity { kernel: "cd".repeat(32), vcpus: 7, ..identity() };
        assert_eq!(
            made.mismatch(&needed).unwrap().to_string(),
            "it was made for kernel abababababab…, this is cdcdcdcdcdcd…"
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_shown() {
        let needed = Identity { cpu: format!("\x1b[2J{}", "x".repeat(500)), ..identity() };
        let text = identity().mismatch(&needed).unwrap().to_string();
        assert!(!text.contains('\x1b') && text.len() < 400, "{text}");
    }
}
