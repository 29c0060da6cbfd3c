// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::container::spec::{MachineSpec, ProcessSpec, RootSpec, SecuritySpec};
use crate::container::state::Exit;
use std::collections::BTreeMap;
use std::process;
use std::slice;
use std::sync::Barrier;
use std::thread;

pub(crate) fn spec(name: Option<&str>, remove: bool) -> ContainerSpec {
    ContainerSpec {
        image: "demo".into(),
        name: name.map(|n| n.parse().unwrap()),
        remove,
        process: ProcessSpec::default(),
        machine: MachineSpec::default(),
        security: SecuritySpec::default(),
        root: RootSpec::default(),
        hostname: None,
        labels: BTreeMap::new(),
    }
}

fn create(records: &Records, name: Option<&str>, remove: bool) -> Result<Owned> {
    let spec = spec(name, remove);
    records.create(spec.name.clone(), |id, name| new_record(id, name, spec))
}

/// What `kill -9` of the owner does: its descriptors are closed, nothing else.
fn kill(owned: Owned) {
    drop(owned);
}

fn running(records: &Records, name: &str, remove: bool) -> Owned {
    let mut owned = create(records, Some(name), remove).unwrap();
    owned.change(Change::Start).unwrap();
    owned.change(Change::Up { at: 1 }).unwrap();
    owned
}

fn fresh() -> (tempfile::TempDir, Records) {
    let folder = tempfile::tempdir().unwrap();
    let records = Records::open(folder.path()).unwrap();
    (folder, records)
}

#[test]
fn a_container_is_found_by_name_by_id_and_by_its_beginning() {
    let (_folder, records) = fresh();
    let owned = create(&records, Some("web"), false).unwrap();
    let id = owned.record.id.clone();
    for reference in ["web", id.as_str(), id.short(), &id.as_str()[..4]] {
        assert_eq!(records.find(reference).unwrap().id, id, "{reference}");
    }
    for reference in ["", "we", "../web", "web/", "*"] {
        assert_eq!(records.find(reference).unwrap_err().kind(), Kind::NotFound, "{reference}");
    }
}

#[test]
fn a_record_survives_being_written_and_read() {
    let (_folder, records) = fresh();
    let owned = running(&records, "web", false);
    assert_eq!(records.list().unwrap(), slice::from_ref(&owned.record));
}

#[test]
fn a_name_is_given_once_and_the_error_says_to_whom() {
    let (_folder, records) = fresh();
    let first = create(&records, Some("web"), false).unwrap();
    let error = create(&records, Some("web"), false).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.to_string().contains(first.record.id.short()), "{error}");
    assert_eq!(records.list().unwrap().len(), 1);
}

#[test]
fn of_many_who_want_a_name_at_once_one_gets_it() {
    let (_folder, records) = fresh();
    let start = Barrier::new(16);
    let outcomes: Vec<Result<Owned>> = thread::scope(|scope| {
        let one = || {
            start.wait();
            create(&records, Some("web"), false)
        };
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    assert_eq!(records.list().unwrap().len(), 1);
}

#[test]
fn names_nobody_chose_do_not_clash() {
    let (_folder, records) = fresh();
    let all: Vec<Owned> = (0..200).map(|_| create(&records, None, false).unwrap()).collect();
    let mut names: Vec<&Name> = all.iter().map(|o| &o.record.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 200);
}

#[test]
fn a_running_container_whose_owner_is_killed_reads_as_exited_137() {
    let (_folder, records) = fresh();
    kill(running(&records, "web", false));
    let State::Exited(exit) = records.find("web").unwrap().state else { panic!("it is over") };
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("killed")));
    assert!(records.find("web").unwrap().machine.is_none());
}

#[test]
fn an_exit_that_was_written_is_kept_when_its_owner_is_gone() {
    let (_folder, records) = fresh();
    let mut owned = running(&records, "web", false);
    owned.change(Change::End(Exit::new(3, 9))).unwrap();
    kill(owned);
    assert_eq!(records.find("web").unwrap().state, State::Exited(Exit::new(3, 9)));
}

#[test]
fn what_a_killed_run_with_rm_left_is_swept_with_its_name() {
    let (_folder, records) = fresh();
    kill(running(&records, "gone", true));
    let stays = running(&records, "stays", true);
    kill(running(&records, "kept", false));
    records.sweep().unwrap();
    let names: Vec<String> = records.list().unwrap().iter().map(|r| r.name.to_string()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(create(&records, Some("gone"), true).is_ok());
    drop(stays);
}

#[test]
fn the_name_of_a_killed_run_with_rm_can_be_had_at_once() {
    let (_folder, records) = fresh();
    kill(running(&records, "web", true));
    create(&records, Some("web"), true).unwrap();
    assert_eq!(records.list().unwrap().len(), 1);
}

#[test]
fn a_folder_that_never_became_a_record_is_swept() {
    let (folder, records) = fresh();
    let half = folder.path().join("containers").join(Id::random().as_str());
    fs::create_dir(&half).unwrap();
    fs::write(half.join("lock"), "").unwrap();
    records.sweep().unwrap();
    assert!(!half.exists());
    assert!(records.list().unwrap().is_empty());
}

#[test]
fn a_torn_record_hides_itself_and_nothing_else_and_can_be_removed() {
    let (folder, records) = fresh();
    let owned = create(&records, Some("torn"), false).unwrap();
    let id = owned.record.id.clone();
    kill(owned);
    create(&records, Some("whole"), false).unwrap();
    let path = folder.path().join("containers").join(id.as_str()).join(RECORD);
    for bytes in [&b""[..], b"{", b"\0\0\0\0", b"{\"version\":99}"] {
        fs::write(&path, bytes).unwrap();
        records.sweep().unwrap();
        assert_eq!(records.list().unwrap().len(), 1);
        assert!(path.exists(), "it is kept for whoever can read it");
    }
    assert!(records.remove(&id).unwrap());
    assert!(!path.exists());
}

#[test]
fn an_owned_container_is_not_removed_by_others() {
    let (_folder, records) = fresh();
    let owned = running(&records, "web", false);
    assert!(!records.remove(&owned.record.id).unwrap());
    records.remove_owned(owned).unwrap();
    assert!(records.list().unwrap().is_empty());
    assert!(create(&records, Some("web"), false).is_ok());
}

#[test]
fn removal_leaves_nothing() {
    let (folder, records) = fresh();
    let owned = create(&records, Some("web"), false).unwrap();
    records.remove_owned(owned).unwrap();
    let left = |path: &str| fs::read_dir(folder.path().join(path)).unwrap().count();
    assert_eq!((left("containers/names"), left("containers")), (0, 2));
}

#[test]
fn a_process_is_known_by_its_start_too() {
    let me = MachineProcess::of(process::id()).unwrap();
    assert!(me.started > 0);
    assert_eq!(MachineProcess::of(process::id()), Some(me));
    assert_eq!(MachineProcess::of(0), None);
}
