// SPDX-License-Identifier: Apache-2.0
//! What is known of containers, on disk: a folder for each.
//!
//! ```text
//!   containers/lock               held for a moment while a folder or a name comes or goes
//!   containers/names/NAME         a link whose target is the id
//!   containers/ID/lock            held by the process that owns the container, as long as it lives
//!   containers/ID/container.json  written by the owner alone, whole or not at all
//! ```
//!
//! The kernel gives up a lock when its holder dies, whatever killed it. So a record that says "running" beside a lock
//! that is free tells of a container whose owner was killed, and its machine with it; it reads as exited with 137.

use super::name::{Id, Name};
use super::now;
use super::spec::ContainerSpec;
use super::state::{Change, State};
use super::word::Word;
use crate::error::{EngineError, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

/// Of the records' form; a reader refuses a newer one.
const VERSION: u32 = 1;
const RECORD: &str = "container.json";
/// Records are a few KB; who finds a larger one does not read it.
const MAX_RECORD: u64 = 4 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub id: Id,
    pub name: Name,
    pub spec: ContainerSpec,
    /// The image's full reference and its digest, as resolved.
    pub image: String,
    pub image_digest: String,
    /// What runs, once entrypoint and command were put together.
    pub command: Vec<Word>,
    /// Seconds since the epoch.
    pub created: u64,
    pub state: State,
    /// The process of the machine, while there is one.
    pub machine: Option<MachineProcess>,
}

/// A process, exactly: numbers are used again, but not with the same start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineProcess {
    pub pid: u32,
    /// In clock ticks since boot (proc(5), `stat` field 22).
    pub started: u64,
}

impl MachineProcess {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Field 2 is a name in parentheses, in which anything may stand; after it comes field 3.
        let (_, rest) = stat.rsplit_once(')')?;
        let started = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, started })
    }
}

/// All containers under one root.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    root: PathBuf,
}

/// A container this process owns. Dropping it gives the lock up, and with it the container.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) record: Record,
    folder: PathBuf,
    _lock: File,
}

impl Records {
    pub(crate) fn open(data_root: &Path) -> Result<Self> {
        let root = data_root.join("containers");
        let names = root.join("names");
        if !names.is_dir() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&names);
            made.map_err(|e| {
                EngineError::io(format!("cannot make {}", names.display()))(e)
                    .hint("--data-root or $ISOPOD_DATA_ROOT names another folder")
            })?;
        }
        Ok(Self { root })
    }

    /// Writes down a new container and takes it into possession; `make` is given the id.
    pub(crate) fn create(&self, name: Option<Name>, make: impl FnOnce(Id, Name) -> Record) -> Result<Owned> {
        let id = Id::random();
        let what = || format!("cannot write down the container under {}", self.root.display());
        let _guard = self.guard()?;
        let name = match name {
            Some(name) => self.free(&name).map(|()| name)?,
            None => self.thrown()?,
        };
        let folder = self.root.join(id.as_str());
        DirBuilder::new().mode(0o700).create(&folder).map_err(EngineError::io(what()))?;
        let made = || -> io::Result<File> {
            let lock = File::create_new(folder.join("lock"))?;
            lock.lock()?;
            symlink(id.as_str(), self.root.join("names").join(name.as_str()))?;
            Ok(lock)
        };
        let lock = made().map_err(|e| {
            let _ = fs::remove_dir_all(&folder);
            EngineError::io(what())(e)
        })?;
        let owned = Owned { record: make(id, name), folder, _lock: lock };
        if let Err(error) = owned.write(Durability::Later) {
            let _ = self.erase(&owned.record);
            return Err(error);
        }
        Ok(owned)
    }

    /// Every container, the youngest first.
    pub(crate) fn list(&self) -> Result<Vec<Record>> {
        let mut all: Vec<Record> = self.ids()?.iter().filter_map(|id| self.read(id)).collect();
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.name.cmp(&b.name)));
        Ok(all)
    }

    /// The container of this name, id, or beginning of an id.
    pub(crate) fn find(&self, reference: &str) -> Result<Record> {
        let none =
            || EngineError::new(Kind::NotFound, format!("no container `{}`", reference.escape_debug()));
        if let Some(id) = reference.parse::<Name>().ok().and_then(|name| self.holder(&name))
            && let Some(record) = self.read(&id)
        {
            return Ok(record);
        }
        if reference.is_empty() {
            return Err(none());
        }
        let ids: Vec<Id> = self.ids()?.into_iter().filter(|id| id.as_str().starts_with(reference)).collect();
        match &ids[..] {
            [id] => self.read(id).ok_or_else(none),
            [] => Err(none()),
            _ => Err(EngineError::new(
                Kind::Conflict,
                format!("more than one container's id begins with {reference}"),
            )),
        }
    }

    /// Forgets a container that nobody owns; false if somebody does.
    pub(crate) fn remove(&self, id: &Id) -> Result<bool> {
        let _guard = self.guard()?;
        self.remove_guarded(id)
    }

    /// Removes what a killed process left: control groups, containers with `--rm`, and folders that never became a record.
    pub(crate) fn sweep(&self) -> Result<()> {
        isopod_jail::sweep();
        let ids = self.ids()?;
        let left = |id: &Id| match self.read(id) {
            Some(record) => record.spec.remove && record.state.is_over(),
            None => true,
        };
        if !ids.iter().any(|id| left(id) && self.is_free(id)) {
            return Ok(());
        }
        let _guard = self.guard()?;
        for id in ids.iter().filter(|id| left(id)) {
            let torn = self.folder(id).join(RECORD).exists() && self.parse(id).is_none();
            if !torn {
                self.remove_guarded(id)?;
            }
        }
        Ok(())
    }

    /// Forgets an owned container.
    pub(crate) fn remove_owned(&self, owned: Owned) -> Result<()> {
        let _guard = self.guard()?;
        self.erase(&owned.record)
    }

    /// Waits for the owner to give the container up.
    pub(crate) fn wait_for_owner(&self, id: &Id, tries: u32, pause: impl Fn()) -> bool {
        (0..tries).any(|_| {
            let free = self.is_free(id);
            if !free {
                pause();
            }
            free
        })
    }

    fn remove_guarded(&self, id: &Id) -> Result<bool> {
        if !self.is_free(id) {
            return Ok(false);
        }
        match self.parse(id) {
            Some(record) => self.erase(&record)?,
            None => self.erase_folder(id)?,
        }
        Ok(true)
    }

    /// The name first: who finds a folder without one can remove it, but a name without a folder is in the way.
    fn erase(&self, record: &Record) -> Result<()> {
        if self.holder(&record.name).as_ref() == Some(&record.id) {
            let link = self.root.join("names").join(record.name.as_str());
            fs::remove_file(&link).map_err(EngineError::io(format!("cannot remove {}", link.display())))?;
        }
        self.erase_folder(&record.id)
    }

    fn erase_folder(&self, id: &Id) -> Result<()> {
        let folder = self.folder(id);
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            result => result.map_err(EngineError::io(format!("cannot remove {}", folder.display()))),
        }
    }

    /// An error if the name is taken by a container that is to stay.
    fn free(&self, name: &Name) -> Result<()> {
        let Some(id) = self.holder(name) else {
            return Ok(());
        };
        let stays = self.read(&id).is_some_and(|record| !(record.spec.remove && record.state.is_over()));
        if !stays && self.is_free(&id) {
            let link = self.root.join("names").join(name.as_str());
            fs::remove_file(&link).map_err(EngineError::io(format!("cannot remove {}", link.display())))?;
            return self.erase_folder(&id);
        }
        let what = format!("the name `{name}` is taken by container {}", id.short());
        Err(EngineError::new(Kind::Conflict, what)
            .hint(format!("choose another name, or remove that container with `isopod rm {name}`")))
    }

    fn thrown(&self) -> Result<Name> {
        let mut name = Name::random();
        for _ in 0..100 {
            if self.holder(&name).is_none() {
                return Ok(name);
            }
            name = Name::random().numbered();
        }
        Err(EngineError::new(Kind::Conflict, "no free name was found").hint("choose one with --name"))
    }

    fn holder(&self, name: &Name) -> Option<Id> {
        let target = fs::read_link(self.root.join("names").join(name.as_str())).ok()?;
        Id::try_from(target.into_os_string().into_string().ok()?).ok()
    }

    fn ids(&self) -> Result<Vec<Id>> {
        let entries = fs::read_dir(&self.root);
        let entries = entries.map_err(EngineError::io(format!("cannot read {}", self.root.display())))?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| Id::try_from(name).ok())
            .collect())
    }

    /// A record as it is to be believed, if there is one that can be read.
    fn read(&self, id: &Id) -> Option<Record> {
        let record = self.parse(id)?;
        if record.state.is_over() || !self.is_free(id) {
            return Some(record);
        }
        // Its owner may have written the end and gone since it was read.
        let mut record = self.parse(id)?;
        record.state = record.state.abandoned(now());
        record.machine = None;
        Some(record)
    }

    fn parse(&self, id: &Id) -> Option<Record> {
        let path = self.folder(id).join(RECORD);
        if fs::metadata(&path).ok()?.len() > MAX_RECORD {
            return None;
        }
        let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (record.version == VERSION && record.id == *id).then_some(record)
    }

    fn is_free(&self, id: &Id) -> bool {
        match File::open(self.folder(id).join("lock")) {
            Ok(lock) => !matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)),
            Err(e) => e.kind() == ErrorKind::NotFound,
        }
    }

    pub(crate) fn folder(&self, id: &Id) -> PathBuf {
        self.root.join(id.as_str())
    }

    fn guard(&self) -> Result<File> {
        let path = self.root.join("lock");
        let open = || -> io::Result<File> {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(EngineError::io(format!("cannot lock {}", path.display())))
    }
}

/// Whether a record has to be on the disk before anybody is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    Now,
    Later,
}

impl Owned {
    /// Its own, for what must not outlive it.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Follows a change of state and writes it down.
    pub(crate) fn change(&mut self, change: Change) -> Result<()> {
        let state = self.record.state.after(change);
        self.record.state = state.map_err(|e| EngineError::new(Kind::Conflict, e.to_string()))?;
        let over = self.record.state.is_over();
        if over {
            self.record.machine = None;
        }
        // What is about to be removed is not written once more: who dies before that has been killed, as far as others know.
        match (over, self.record.spec.remove) {
            (true, true) => Ok(()),
            (true, false) => self.write(Durability::Now),
            (false, _) => self.write(Durability::Later),
        }
    }

    fn write(&self, durability: Durability) -> Result<()> {
        let written = || -> io::Result<()> {
            let (path, fresh) = (self.folder.join(RECORD), self.folder.join("container.json.new"));
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&serde_json::to_vec(&self.record)?)?;
            if durability == Durability::Now {
                file.sync_all()?;
            }
            fs::rename(&fresh, &path)?;
            if durability == Durability::Now {
                File::open(&self.folder)?.sync_all()?;
            }
            Ok(())
        };
        written().map_err(EngineError::io(format!("cannot write {}", self.folder.join(RECORD).display())))
    }
}

pub(crate) fn new_record(id: Id, name: Name, spec: ContainerSpec) -> Record {
    Record {
        version: VERSION,
        id,
        name,
        image: spec.image.clone(),
        image_digest: String::new(),
        command: Vec::new(),
        spec,
        created: now(),
        state: State::Created,
        machine: None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
