// SPDX-License-Identifier: Apache-2.0

use super::*;
use proptest::prelude::*;
use std::fs::{File, write};

const PASSWD: &[u8] =
    b"root:x:0:0:root:/root:/bin/sh\n# a comment:x:0:0::/:\nweb:x:1000:1001:Web:/srv/web:/bin/false\n\
    big:x:4294967296:0::/big:\nneg:x:-1:0::/neg:\nhalf:x:12\n\nweb:x:7:7::/second:\n";
const GROUP: &[u8] =
    b"root:x:0:root\nbin:x:1:root,daemon\nweb:x:1001:\nlog:x:20:nobody,web\nlogs:x:21:webb\nbad:x:x:web\n";

fn who(wanted: &str) -> Result<Identity, Failure> {
    identify(wanted, || Ok(PASSWD.to_vec()), || Ok(GROUP.to_vec()))
}

fn ids(wanted: &str) -> (u32, u32, Vec<u32>) {
    let Identity { uid, gid, groups, .. } = who(wanted).unwrap();
    (uid, gid, groups)
}

fn refusal(wanted: &str) -> FailedKind {
    who(wanted).unwrap_err().kind
}

#[test]
fn nobody_named_is_root_with_roots_groups() {
    assert_eq!(ids(""), (0, 0, vec![0, 1]));
    assert_eq!(who("").unwrap().home, b"/root");
}

#[test]
fn a_name_has_its_ids_its_groups_and_its_home() {
    assert_eq!(ids("web"), (1000, 1001, vec![1001, 20]));
    assert_eq!(who("web").unwrap().home, b"/srv/web");
}

#[test]
fn a_number_that_is_a_users_is_that_user() {
    assert_eq!(ids("1000"), (1000, 1001, vec![1001, 20]));
    assert_eq!(ids("007"), (7, 7, vec![7, 20]));
}

#[test]
fn a_number_that_is_nobodys_is_taken_as_it_is() {
    assert_eq!(ids("4242"), (4242, 0, vec![0]));
    assert_eq!(who("4242").unwrap().home, b"/");
    assert_eq!(ids("2147483647"), (2_147_483_647, 0, vec![0]));
}

#[test]
fn a_group_that_is_named_is_the_only_one() {
    assert_eq!(ids("web:log"), (1000, 20, vec![20]));
    assert_eq!(ids("web:4000"), (1000, 4000, vec![4000]));
    assert_eq!(ids(":log"), (0, 20, vec![20]));
    assert_eq!(ids("web:"), (1000, 1001, vec![1001, 20]));
}

#[test]
fn an_unknown_name_is_no_user() {
    for wanted in
        ["nobody-here", "web:nothing", "0x0", "-1", "+5", "٣", "big", "neg", "half", "web:log:x", " web"]
    {
        assert_eq!(refusal(wanted), FailedKind::NoSuchUser, "{wanted}");
    }
}

#[test]
fn a_number_out_of_range_is_never_root() {
    for wanted in ["2147483648", "4294967296", "99999999999999999999999", "0:2147483648"] {
        assert_eq!(refusal(wanted), FailedKind::NoSuchUser, "{wanted}");
    }
}

#[test]
fn an_image_without_files_has_root_and_numbers() {
    let who = |wanted| identify(wanted, || Ok(vec![]), || Ok(vec![]));
    assert_eq!(who("").unwrap(), Identity { uid: 0, gid: 0, groups: vec![0], home: b"/".to_vec() });
    assert_eq!(who("5:6").unwrap().gid, 6);
    assert_eq!(who("web").unwrap_err().kind, FailedKind::NoSuchUser);
}

#[test]
fn a_user_in_too_many_groups_is_refused() {
    let many: String = (0..70_000).map(|n| format!("g{n}:x:{}:web\n", n + 5000)).collect();
    assert!(identify("web", || Ok(PASSWD.to_vec()), || Ok(many.into_bytes())).is_err());
}

#[test]
fn a_huge_file_is_refused_and_a_missing_one_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("passwd");
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(slurp(path.to_str().unwrap()).is_err());
    assert_eq!(slurp("/nowhere/passwd").unwrap(), b"");
}

#[test]
fn a_file_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("passwd");
    for len in [0, 1, 4095, 4096, 4097, 300_000] {
        write(&path, vec![b'x'; len]).unwrap();
        assert_eq!(slurp(path.to_str().unwrap()).unwrap().len(), len);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_root_of_somebody_else(passwd: Vec<u8>, group: Vec<u8>, name in "[a-z]{1,4}(:[a-z0-9]{1,4})?") {
        let found = identify(&name, || Ok(passwd.clone()), || Ok(group.clone()));
        if let Ok(found) = found {
            prop_assert!(passwd_entries(&passwd).any(|entry| entry.uid == found.uid));
        }
    }
}
