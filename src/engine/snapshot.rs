// SPDX-License-Identifier: Apache-2.0
//! Snapshots: running containers, written down under a name.
//!
//! ```text
//!   snapshots/NAME.snapshot    one file: whole or not there
//! ```
//!
//! The container's owner writes the file, for he alone may stop its machine; who asked for it made the file without a name
//! and links it once the owner says that it is whole. Whichever of the two is killed, there is a snapshot or none.

use crate::container::control::{self, Ask};
use crate::container::name::Name;
use crate::container::records::{Record, Records};
use crate::container::state::State;
use crate::error::{EngineError, Kind, Result};
use crate::sealed;
use crate::stdio::still::Portrait;
use isopod_sys::unnamed::Unnamed;
use isopod_vmm::envelope::{self, Identity};
use serde::Serialize;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

const SUFFIX: &str = ".snapshot";

/// What is told of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotSummary {
    pub name: String,
    /// The container's name and id.
    pub container: String,
    pub container_id: String,
    pub image: String,
    pub image_digest: String,
    pub command: Vec<String>,
    pub vcpus: u8,
    pub memory_mib: u32,
    /// What it can be restored with.
    pub kernel: String,
    pub agent: String,
    pub isopod: String,
    pub cpu: String,
    /// Bytes on the disk.
    pub size: u64,
    /// Seconds since the epoch.
    pub created: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Snapshots {
    folder: PathBuf,
    run_root: PathBuf,
}

/// A snapshot's file, and what it says of its container.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: File,
    pub(crate) identity: Identity,
    pub(crate) portrait: Portrait,
}

impl Snapshots {
    pub(crate) fn new(data_root: &Path, run_root: &Path) -> Self {
        Self { folder: data_root.join("snapshots"), run_root: run_root.to_owned() }
    }

    /// Writes down a running container under `name`, which is free. The container goes on.
    pub(crate) fn create(&self, records: &Records, container: &str, name: &Name) -> Result<()> {
        let path = self.path(name.as_str());
        let taken = || {
            EngineError::new(Kind::Conflict, format!("there is a snapshot `{name}` already"))
                .hint(format!("choose another name, or remove that one with `isopod snapshot rm {name}`"))
        };
        if path.exists() {
            return Err(taken());
        }
        let unnamed = self.write(records, container)?;
        let whole = unnamed.link_new(&format!("{name}{SUFFIX}")).map_err(|e| match e.kind() {
            // Somebody was faster.
            io::ErrorKind::AlreadyExists => taken(),
            _ => EngineError::io(format!("cannot write {}", path.display()))(e),
        })?;
        sealed::vouch(&whole, &self.run_root);
        Ok(())
    }

    /// As `create`, without a name: who drops it has nothing to clean up.
    pub(crate) fn write(&self, records: &Records, container: &str) -> Result<Unnamed> {
        let record = records.find(container)?;
        if !matches!(record.state, State::Running { .. } | State::Paused { .. }) {
            return Err(not_running(&record));
        }
        let cannot = |e| EngineError::io(format!("cannot write to {}", self.folder.display()))(e);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(cannot)?;
        let unnamed = Unnamed::new(&self.folder, 0o600).map_err(cannot)?;
        control::ask(&records.folder(&record.id), &record, &Ask::Snapshot, &[unnamed.file().as_fd()])?;
        Ok(unnamed)
    }

    /// All there are, the youngest first; what is none of ours is left out.
    pub(crate) fn list(&self) -> Result<Vec<SnapshotSummary>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(EngineError::io(format!("cannot read {}", self.folder.display()))(e)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names = names.filter_map(|name| name.strip_suffix(SUFFIX).map(str::to_owned));
        let mut all: Vec<_> = names.filter_map(|name| self.inspect(&name).ok()).collect();
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.name.cmp(&b.name)));
        Ok(all)
    }

    pub(crate) fn inspect(&self, name: &str) -> Result<SnapshotSummary> {
        let (file, path) = self.find(name)?;
        let cannot = format!("cannot use {}", path.display());
        let at = file.metadata().map_err(EngineError::io(cannot.clone()))?;
        let opened = open(file).map_err(|e| e.within(&cannot))?;
        let Portrait { record, .. } = opened.portrait;
        let created = at.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Ok(SnapshotSummary {
            name: name.to_owned(),
            container: record.name.to_string(),
            container_id: record.id.as_str().to_owned(),
            image: record.image,
            image_digest: record.image_digest,
            command: record.command.iter().map(|word| word.shown().into_owned()).collect(),
            vcpus: opened.identity.vcpus,
            memory_mib: opened.identity.memory_mib,
            kernel: opened.identity.kernel,
            agent: opened.identity.agent,
            isopod: opened.identity.isopod,
            cpu: opened.identity.cpu,
            size: at.blocks() * 512,
            created: created.map_or(0, |since| since.as_secs()),
        })
    }

    /// Removes one. Containers that were started from it go on.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let (_, path) = self.find(name)?;
        let cannot = EngineError::io(format!("cannot remove {}", path.display()));
        sealed::remove(&path, &self.run_root).map_err(cannot)
    }

    /// Opens one as far as to know what it is of; `check` is still to come.
    pub(crate) fn open(&self, name: &str) -> Result<Opened> {
        let (file, path) = self.find(name)?;
        open(file).map_err(|e| e.within(&format!("cannot use {}", path.display())))
    }

    /// Holds a snapshot against what it is to be restored with, and its memory against its digest.
    pub(crate) fn check(&self, opened: &Opened, needed: &Identity) -> Result<()> {
        let what = "the snapshot cannot be restored here";
        if let Some(mismatch) = opened.identity.mismatch(needed) {
            return Err(EngineError::new(Kind::Conflict, what).because(mismatch.to_string()));
        }
        sealed::check_memory(&opened.file, &self.run_root).map_err(|e| e.within(what))
    }

    fn find(&self, name: &str) -> Result<(File, PathBuf)> {
        let none = || EngineError::new(Kind::NotFound, format!("no snapshot `{}`", name.escape_debug()));
        // A name is no path.
        let name: Name = name.parse().map_err(|_| none())?;
        let path = self.path(name.as_str());
        match File::open(&path) {
            Ok(file) => Ok((file, path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(none().hint("`isopod snapshot ls` lists what there is"))
            }
            Err(e) => Err(EngineError::io(format!("cannot open {}", path.display()))(e)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{SUFFIX}"))
    }
}

/// Its head was hashed; what it says is ours to believe then, if it can be understood.
pub(crate) fn open(file: File) -> Result<Opened> {
    let what = "this is no snapshot that can be used";
    let identity =
        envelope::open(&file).map_err(|e| EngineError::new(Kind::Invalid, what).because(e))?.identity;
    if identity.kind != envelope::Kind::Snapshot {
        return Err(EngineError::new(Kind::Invalid, what).because("it is a template"));
    }
    let portrait = serde_json::from_value(identity.extra.clone())
        .map_err(|e| EngineError::new(Kind::Invalid, what).because(e))?;
    Ok(Opened { file, identity, portrait })
}

fn not_running(record: &Record) -> EngineError {
    let what = format!("container {} is {}", record.name, record.state.name());
    EngineError::new(Kind::Conflict, what).hint("only one that runs has something to write down")
}
