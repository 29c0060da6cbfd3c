// SPDX-License-Identifier: Apache-2.0
//! Templates: machines frozen right after their agent came up, from which containers start.
//!
//! ```text
//!   templates/lock            held while one is made, so that two who need it make it once
//!   templates/KEY.template    whole or not there: it is written without a name and linked into place
//!   templates/KEY.touched     which of its pages a start touches: a hint, written by the first one
//! ```
//!
//! The key is a hash of all that a template depends on: another kernel, agent, processor or size needs another template,
//! and finds none. `run` makes the one it needs; nobody has to.

mod learn;
mod make;

use crate::boot::{self, AGENT_HASH};
use crate::container::process;
use crate::error::{EngineError, Kind, Result};
use crate::hex;
use crate::kernel::Kernel;
use crate::kvm::Kvm;
use crate::sealed::{self, Sealed};
use isopod_jail::Layers;
use isopod_vmm::envelope::{self, Identity};
use make::Made;
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::result::Result as StdResult;
use std::time::{Duration, UNIX_EPOCH};

pub(crate) use learn::Learns;
pub(crate) use make::Failed;

const SUFFIX: &str = ".template";
const TOUCHED: &str = ".touched";

/// The devices of a machine, in the order of their windows: part of what a saved one depends on.
const DEVICES: [&str; 4] = ["fs boot", "fs image", "vsock", "rng"];

/// How far a template's making is, for whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    /// Somebody else makes one.
    Waiting,
    Booting,
    Saving,
    Done,
}

/// What is told of a template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TemplateSummary {
    pub key: String,
    pub vcpus: u8,
    pub memory_mib: u32,
    pub kernel: String,
    pub isopod: String,
    /// Bytes on the disk.
    pub size: u64,
    /// Seconds since the epoch.
    pub created: u64,
    /// Whether this isopod would use it, with the kernel it would take.
    pub usable: bool,
}

/// What the agent said when it came up, which no machine from this template says again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Greeting {
    pub(crate) agent: String,
    pub(crate) kernel: String,
    pub(crate) mailbox: u64,
}

/// What a template is made of and for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needed<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) kvm: &'a Kvm,
    pub(crate) vcpus: u8,
    pub(crate) memory_mib: u32,
    /// How long the guest may take to come up.
    pub(crate) limit: Duration,
    /// Of the jail it is made in.
    pub(crate) layers: Layers,
}

/// The agent, and what it was told to prepare for.
fn agent() -> String {
    let likely = Sha256::digest(process::likely().encode_to_vec());
    format!("{AGENT_HASH} for {}", hex::short(likely))
}

#[derive(Debug, Clone)]
pub(crate) struct Templates {
    data_root: PathBuf,
    run_root: PathBuf,
}

impl Templates {
    pub(crate) fn new(data_root: &Path, run_root: &Path) -> Self {
        Self { data_root: data_root.to_owned(), run_root: run_root.to_owned() }
    }

    pub(crate) fn data_root(&self) -> &Path {
        &self.data_root
    }

    pub(crate) fn run_root(&self) -> &Path {
        &self.run_root
    }

    /// The template for this, made if there is none that is sound. However that goes, `progress` hears of its end: who shows
    /// it has a thread for that, and the engine is to be one thread when it gives up what it need not have.
    pub(crate) fn ensure(
        &self,
        needed: Needed<'_>,
        progress: &mut dyn FnMut(Making),
    ) -> StdResult<Sealed, Failed> {
        let found = self.find_or_make(needed, progress);
        progress(Making::Done);
        found
    }

    fn find_or_make(
        &self,
        needed: Needed<'_>,
        progress: &mut dyn FnMut(Making),
    ) -> StdResult<Sealed, Failed> {
        let identity = self.identity(needed)?;
        if let Ok(Some(found)) = self.find(&identity) {
            return Ok(found);
        }
        let _lock = self.lock(progress)?;
        // Somebody else may have made it while we waited for him. What cannot be used is made again.
        match self.find(&identity) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(e) if matches!(e.kind(), Kind::Invalid | Kind::Conflict) => self.forget(&key(&identity))?,
            Err(e) => return Err(e.into()),
        }
        let (boot, _view) = boot::share(&self.data_root)?;
        let made = Made { folder: &self.folder(), name: &format!("{}{SUFFIX}", key(&identity)) };
        let whole = make::make(needed, boot, identity.clone(), made, progress)?;
        sealed::vouch(&whole, &self.run_root);
        let missing = || EngineError::new(Kind::Io, "the template that was just made is not there");
        Ok(self.find(&identity)?.ok_or_else(missing)?)
    }

    /// Which pages a start from this template touches, or who is to find out.
    pub(crate) fn touched(&self, needed: Needed<'_>) -> Result<StdResult<File, Learns>> {
        let name = format!("{}{TOUCHED}", self.key(needed)?);
        Ok(File::open(self.folder().join(&name)).map_err(|_| Learns { folder: self.folder(), name }))
    }

    /// What a machine saved here and now is.
    pub(crate) fn identity(&self, needed: Needed<'_>) -> Result<Identity> {
        Ok(Identity {
            kind: envelope::Kind::Template,
            isopod: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: needed.kernel.hash(&self.run_root)?,
            agent: agent(),
            cpu: needed.kvm.host.cpu.clone(),
            vcpus: needed.vcpus,
            memory_mib: needed.memory_mib,
            assist: needed.kvm.host.assist,
            devices: DEVICES.map(str::to_owned).to_vec(),
            extra: serde_json::Value::Null,
        })
    }

    /// The key of the template for this.
    pub(crate) fn key(&self, needed: Needed<'_>) -> Result<String> {
        self.identity(needed).map(|identity| key(&identity))
    }

    /// All there are, the youngest first; `host` tells which are usable. One that cannot be read is not. Without a host
    /// nobody can tell, and the others are taken to be.
    pub(crate) fn list(&self, host: Option<(&Kernel, &Kvm)>) -> Result<Vec<TemplateSummary>> {
        let mut all: Vec<_> = self.keys()?.into_iter().filter_map(|key| self.summary(key, host)).collect();
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.key.cmp(&b.key)));
        Ok(all)
    }

    /// Removes one, by its key. Machines that were started from it go on.
    pub(crate) fn remove(&self, asked: &str) -> Result<()> {
        let found = self.keys()?.into_iter().find(|key| key == asked);
        let none = || EngineError::new(Kind::NotFound, format!("no template `{}`", asked.escape_debug()));
        self.forget(&found.ok_or_else(none)?)
    }

    fn forget(&self, key: &str) -> Result<()> {
        let _ = fs::remove_file(self.folder().join(format!("{key}{TOUCHED}")));
        let path = self.path(key);
        match sealed::remove(&path, &self.run_root) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(EngineError::io(format!("cannot remove {}", path.display()))(e))
            }
            _ => Ok(()),
        }
    }

    fn summary(&self, key: String, host: Option<(&Kernel, &Kvm)>) -> Option<TemplateSummary> {
        let file = File::open(self.path(&key)).ok()?;
        let at = file.metadata().ok()?;
        let created = at.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let size = at.blocks() * 512;
        let created = created.map_or(0, |since| since.as_secs());
        let none = TemplateSummary { key, size, created, ..TemplateSummary::default() };
        let Ok(Identity { vcpus, memory_mib, kernel: made_for, isopod, .. }) =
            envelope::open(&file).map(|envelope| envelope.identity)
        else {
            return Some(none);
        };
        let own = |(kernel, kvm)| {
            let (limit, layers) = (Duration::ZERO, Layers::NONE);
            self.key(Needed { kernel, kvm, vcpus, memory_mib, limit, layers })
        };
        let usable = host.is_none_or(|host| own(host).is_ok_and(|own| own == none.key));
        Some(TemplateSummary { usable, vcpus, memory_mib, kernel: made_for, isopod, ..none })
    }

    fn keys(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(self.folder()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(EngineError::io(format!("cannot read {}", self.folder().display()))(e)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.strip_suffix(SUFFIX).map(str::to_owned)).collect())
    }

    fn find(&self, identity: &Identity) -> Result<Option<Sealed>> {
        sealed::open(&self.path(&key(identity)), &self.run_root, identity)
    }

    fn folder(&self) -> PathBuf {
        self.data_root.join("templates")
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder().join(format!("{key}{SUFFIX}"))
    }

    fn lock(&self, progress: &mut dyn FnMut(Making)) -> Result<File> {
        let path = self.folder().join("lock");
        let mut open = || -> io::Result<File> {
            DirBuilder::new().recursive(true).mode(0o700).create(self.folder())?;
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    progress(Making::Waiting);
                    file.lock()?;
                }
                other => other?,
            }
            Ok(file)
        };
        open().map_err(EngineError::io(format!("cannot lock {}", path.display())))
    }
}

/// The name of what a template depends on.
fn key(identity: &Identity) -> String {
    let text = serde_json::to_vec(identity).unwrap_or_default();
    hex::short(Sha256::digest(text))
}
