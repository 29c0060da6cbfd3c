// SPDX-License-Identifier: Apache-2.0
//! What this host leaves open between machines, by what its kernel says: nothing that isopod could close.

use super::{Check, Verdict, check};
use std::fs;
use std::path::Path;

const VULNERABILITIES: &str = "sys/devices/system/cpu/vulnerabilities";

/// One thing that is as it should not be where strangers' machines are neighbours, and what to do about it.
struct Risk {
    found: String,
    cure: &'static str,
}

/// Looks at `/proc` and `/sys` beneath `root`. What is not there is passed over.
pub(super) fn look(root: &Path) -> Check {
    let name = "host risks";
    let risks: Vec<Risk> =
        [processor(root), siblings(root), merging(root), swap(root)].into_iter().flatten().collect();
    if risks.is_empty() {
        return check(name, Verdict::Good, "none that its kernel tells of");
    }
    let found: Vec<String> = risks.iter().map(|risk| risk.found.clone()).collect();
    let cures: Vec<&str> = risks.iter().map(|risk| risk.cure).collect();
    check(name, Verdict::Notice, found.join("; "))
        .cure(format!("for strangers side by side: {}", cures.join("; ")))
}

fn text(root: &Path, path: &str) -> Option<String> {
    Some(fs::read_to_string(root.join(path)).ok()?.trim().to_owned())
}

/// Each file is called what the fault is, and says what is done about it.
fn processor(root: &Path) -> Option<Risk> {
    let entries = fs::read_dir(root.join(VULNERABILITIES)).ok()?.flatten();
    let open = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains("Vulnerable"));
    let faults = entries.filter(|entry| open(&entry.path()));
    let mut faults: Vec<String> =
        faults.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    faults.sort();
    (!faults.is_empty()).then(|| Risk {
        found: format!("vulnerable processor ({})", faults.join(", ")),
        cure: "newer microcode and kernel, with its mitigations on",
    })
}

fn siblings(root: &Path) -> Option<Risk> {
    (text(root, "sys/devices/system/cpu/smt/active")? == "1").then(|| Risk {
        found: "SMT is on (machines share cores, and their side channels)".to_owned(),
        cure: "SMT off, or a core scheduling cookie for each tenant",
    })
}

/// 1 merges, 2 has given up what was merged (Documentation/admin-guide/mm/ksm.rst).
fn merging(root: &Path) -> Option<Risk> {
    (text(root, "sys/kernel/mm/ksm/run")? == "1").then(|| Risk {
        found: "KSM is on (who shares a page can tell by its time)".to_owned(),
        cure: "0 into /sys/kernel/mm/ksm/run",
    })
}

fn swap(root: &Path) -> Option<Risk> {
    // The first line is the heads of the columns.
    (text(root, "proc/swaps")?.lines().count() > 1).then(|| Risk {
        found: "swap is on (a guest's memory gets to disk)".to_owned(),
        cure: "no swap, or an encrypted one",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A host whose kernel says this.
    fn host(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn what_is_not_there_is_no_risk() {
        let found = look(host(&[]).path());
        assert_eq!((found.verdict, found.cure), (Verdict::Good, None));
    }

    #[test]
    fn a_host_that_does_what_it_can_has_no_risk() {
        let found = look(
            host(&[
                (
                    "sys/devices/system/cpu/vulnerabilities/mds",
                    "Mitigation: Clear CPU buffers; SMT disabled\n",
                ),
                ("sys/devices/system/cpu/vulnerabilities/retbleed", "Not affected\n"),
                ("sys/devices/system/cpu/smt/active", "0\n"),
                ("sys/kernel/mm/ksm/run", "0\n"),
                ("proc/swaps", "Filename Type Size Used Priority\n"),
            ])
            .path(),
        );
        assert_eq!(found.verdict, Verdict::Good, "{found:?}");
    }

    #[test]
    fn each_risk_is_a_note_and_says_what_to_do() {
        let vulnerabilities = |name| format!("{VULNERABILITIES}/{name}");
        for (path, text, word, cure) in [
            (vulnerabilities("mds"), "Vulnerable: no microcode; SMT vulnerable\n", "(mds)", "microcode"),
            (vulnerabilities("itlb_multihit"), "KVM: Vulnerable\n", "(itlb_multihit)", "microcode"),
            ("sys/devices/system/cpu/smt/active".into(), "1\n", "SMT", "SMT off"),
            ("sys/kernel/mm/ksm/run".into(), "1\n", "KSM", "/sys/kernel/mm/ksm/run"),
            ("proc/swaps".into(), "Filename\n/dev/sda2 partition 1 0 -2\n", "swap", "encrypted"),
        ] {
            let found = look(host(&[(&path, text)]).path());
            assert_eq!(found.verdict, Verdict::Notice, "{path}");
            assert!(found.found.contains(word) && found.cure.unwrap().contains(cure), "{}", found.found);
        }
    }

    #[test]
    fn all_of_them_are_told_at_once() {
        let mds = format!("{VULNERABILITIES}/mds");
        let files = [(mds.as_str(), "Vulnerable"), ("sys/kernel/mm/ksm/run", "1"), ("proc/swaps", "a\nb")];
        let found = look(host(&files).path()).found;
        assert_eq!(found.split("; ").count(), 3, "{found}");
    }
}
