// SPDX-License-Identifier: Apache-2.0
//! Containers as the user means them. `Engine` is the only door: whoever wants a container goes through it and sees the
//! same state, exit codes and errors as everybody else.
//!
//! ```text
//!   Engine ─┬─ images ───────────────► isopod-image          what there is to run
//!           ├─ container ─┬─ spec, process                   what is to run, worked out
//!           │             ├─ records, state                  what is known of it
//!           │             └─ run, list, remove               one verb a file
//!           ├─ stdio ─ agent, sink, terminal, signals        a foreground container's one loop
//!           ├─ seccomp, capabilities, etc                    what the guest is told, digested here
//!           ├─ boot, kernel, kvm ────► isopod-vmm            what a machine is made from
//!           ├─ template, sealed, memo                        what it starts from
//!           ├─ disk                                          what all of it takes, and what of that can go
//!           └─ doctor, timings                               what to tell the user
//! ```
#![forbid(unsafe_code)]

mod agent;
mod boot;
pub mod capabilities;
pub mod container;
mod disk;
pub mod doctor;
mod error;
mod etc;
pub mod filters;
mod hex;
mod images;
mod kernel;
mod kvm;
mod machine;
mod memo;
mod sealed;
pub mod seccomp;
mod signals;
mod sink;
mod snapshot;
mod stdio;
mod template;
mod terminal;
mod time;
pub mod timings;

pub use container::conclude::exit_code;
pub use container::inspect::ContainerInspect;
pub use container::name::{Id, Name};
pub use container::records::Record;
pub use container::restore::CopySpec;
pub use container::run::Finished;
pub use container::spec;
pub use container::state::{Exit, State};
pub use container::word::Word;
pub use disk::prune::Reclaimed;
pub use disk::{ContainerUsage, DiskUsage, Share};
pub use error::{EngineError, Kind, Result};
pub use images::{ImageFilters, ImageInspect, Pull};
pub use isopod_image::unpack::{NAME as UNPACK_NAME, main as unpack_main};
pub use isopod_image::{
    ArchiveForm, Damage, ImageUsage, Kept, LayerProgress, Loaded, Part, Progress, Pruned, Reference, Removed,
    Repair, Step, Stray, Summary, Usage,
};
pub use isopod_jail::{Layer, Layers, Observation, UnknownLayer, Waiting};
pub use isopod_vmm::process::{NAME as VMM_NAME, main as vmm_main};
pub use snapshot::SnapshotSummary;
pub use template::{Making, TemplateSummary};
pub use terminal::Streams;
pub use time::rfc3339;
pub use timings::Timings;

use container::launch::Context;
use container::records::Records;
use images::Images;
use isopod_jail::own_layers;
use isopod_vmm::client;
use rustix::process::geteuid;
use snapshot::Snapshots;
use spec::{ContainerSpec, MachineSpec};
use std::env;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use template::Templates;

/// Where an engine keeps what it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Images and containers: what outlives a boot.
    pub data_root: PathBuf,
    /// What does not.
    pub run_root: PathBuf,
    /// Layers of the jail that no process is put behind.
    pub unjailed: Layers,
}

impl Default for Options {
    /// The system's folders for root, the user's own for anybody else.
    fn default() -> Self {
        if geteuid().is_root() {
            return Self {
                data_root: "/var/lib/isopod".into(),
                run_root: "/run/isopod".into(),
                unjailed: Layers::NONE,
            };
        }
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let home = || absolute("HOME").unwrap_or_else(|| "/".into());
        let data = absolute("XDG_DATA_HOME").unwrap_or_else(|| home().join(".local/share"));
        let run = absolute("XDG_RUNTIME_DIR").unwrap_or_else(|| data.join("isopod"));
        let run = if run.ends_with("isopod") { run.join("run") } else { run.join("isopod") };
        Self { data_root: data.join("isopod"), run_root: run, unjailed: Layers::NONE }
    }
}

/// What a container has of the command that runs it in the foreground.
#[derive(Debug)]
pub struct Foreground<'a> {
    pub streams: Streams<'a>,
    pub timings: &'a mut Timings,
    /// From `spawn_ahead`.
    pub waiting: Option<Waiting>,
}

/// A machine's process, for whoever is about to run a container: it is loaded while the caller still finds out which. That
/// none can be had is told by who needs it.
pub fn spawn_ahead(unjailed: Layers) -> Option<Waiting> {
    client::spawn_ahead(own_layers().without(unjailed)).ok()
}

/// All containers and images under one data root.
#[derive(Debug)]
pub struct Engine {
    images: Images,
    records: Records,
    templates: Templates,
    snapshots: Snapshots,
    /// Of the jail of each process it starts.
    layers: Layers,
}

impl Engine {
    pub fn open(options: Options) -> Result<Self> {
        // The records first: they make the data root for its user alone.
        let records = Records::open(&options.data_root)?;
        let layers = own_layers().without(options.unjailed);
        let images = Images::open(&options.data_root, layers)?;
        let templates = Templates::new(&options.data_root, &options.run_root);
        let snapshots = Snapshots::new(&options.data_root, &options.run_root);
        Ok(Self { images, records, templates, snapshots, layers })
    }

    /// Runs a container in the foreground, to its end.
    pub fn run(
        &self,
        spec: ContainerSpec,
        foreground: Foreground<'_>,
        making: &mut dyn FnMut(Making),
    ) -> Result<Finished> {
        container::run::run(self.context(foreground), spec, making)
    }

    /// Runs a container that goes on where a snapshot was taken, to its end.
    pub fn run_snapshot(&self, name: &str, copy: CopySpec, foreground: Foreground<'_>) -> Result<Finished> {
        let opened = self.snapshots.open(name)?;
        container::restore::restore(self.context(foreground), &self.snapshots, opened, copy)
    }

    /// As `run_snapshot`, from what `copy_of` gave.
    pub fn run_copy(&self, file: File, copy: CopySpec, foreground: Foreground<'_>) -> Result<Finished> {
        let opened = snapshot::open(file)?;
        container::restore::restore(self.context(foreground), &self.snapshots, opened, copy)
    }

    /// A running container, written into a file that has no name: containers started from it share its memory, and who
    /// has closed it leaves nothing.
    pub fn copy_of(&self, container: &str) -> Result<File> {
        let unnamed = self.snapshots.write(&self.records, container)?;
        // Again, and only for reading: a copy's machine has no business in what the others are mapped from.
        let again = File::open(format!("/proc/self/fd/{}", unnamed.file().as_raw_fd()));
        again.map_err(EngineError::io("cannot keep the copy's file"))
    }

    /// Writes a running container down under a name.
    pub fn snapshot(&self, container: &str, name: &str) -> Result<()> {
        let name = name.parse().map_err(|e| {
            let what = format!("`{}` is no name for a snapshot", name.escape_debug());
            EngineError::new(Kind::Invalid, what).because(e)
        })?;
        self.snapshots.create(&self.records, container, &name)
    }

    pub fn snapshots(&self) -> Result<Vec<SnapshotSummary>> {
        self.snapshots.list()
    }

    pub fn inspect_snapshot(&self, name: &str) -> Result<SnapshotSummary> {
        self.snapshots.inspect(name)
    }

    pub fn remove_snapshot(&self, name: &str) -> Result<()> {
        self.snapshots.remove(name)
    }

    pub fn pause(&self, container: &str) -> Result<Record> {
        container::pause::pause(&self.records, container)
    }

    pub fn unpause(&self, container: &str) -> Result<Record> {
        container::pause::unpause(&self.records, container)
    }

    /// The templates there are; whether each is usable is told for the kernel that a run would take.
    pub fn templates(&self) -> Result<Vec<TemplateSummary>> {
        self.templates.list(Some((&kernel::find(None)?, &kvm::open(self.templates.run_root())?)))
    }

    /// Makes the template that machines of this make start from, if there is none.
    pub fn build_template(&self, machine: &MachineSpec, making: &mut dyn FnMut(Making)) -> Result<String> {
        container::run::build_template((&self.templates, self.layers), machine, making)
    }

    pub fn remove_template(&self, key: &str) -> Result<()> {
        self.templates.remove(key)
    }

    fn context<'a>(&'a self, foreground: Foreground<'a>) -> Context<'a> {
        let Self { images, records, templates, layers, .. } = self;
        let Foreground { streams, timings, waiting } = foreground;
        Context { images, records, templates, layers: *layers, waiting, streams, timings }
    }

    /// The containers that are not over, or all; the youngest first.
    pub fn list(&self, all: bool) -> Result<Vec<Record>> {
        container::list::list(&self.records, all)
    }

    /// Forgets a container; `force` ends it first if need be.
    pub fn remove(&self, reference: &str, force: bool) -> Result<Record> {
        container::remove::remove(&self.records, reference, force)
    }

    /// Pulls an image from its registry: the one for this host, or for the platform that is named.
    pub fn pull(&self, image: &str, platform: Option<&str>, progress: &dyn Progress) -> Result<Loaded> {
        self.images.pull(image, platform, progress)
    }

    /// The images with a tag that are in a repository, by their names.
    pub fn tags(repository: &str) -> Result<Vec<String>> {
        Images::tags(repository)
    }

    /// Sees to it that an image is here before it is run: gives what had to be pulled.
    pub fn provide(&self, image: &str, pull: Pull, progress: &dyn Progress) -> Result<Option<Loaded>> {
        self.images.provide(image, pull, progress)
    }

    /// Becomes known to a registry. Docker's credentials and ours are the same, whichever the data root.
    pub fn log_in(registry: &str, name: &str, secret: &str) -> Result<Kept> {
        Images::log_in(registry, name, secret)
    }

    /// Forgets what a registry knows us by. Says whether there was anything.
    pub fn log_out(registry: &str) -> Result<bool> {
        Images::log_out(registry)
    }

    /// Pushes an image to the registry in its name. Gives its digest.
    pub fn push(&self, image: &str, progress: &dyn Progress) -> Result<String> {
        self.images.push(image, progress)
    }

    /// Gives an image one more name.
    pub fn tag(&self, image: &str, name: &str) -> Result<()> {
        self.images.tag(image, name)
    }

    /// Takes a name from an image, and removes the image with its last one.
    pub fn remove_image(&self, image: &str, force: bool) -> Result<Removed> {
        self.images.remove(image, force, &self.records.list()?)
    }

    /// Loads the images of an archive or a layout folder.
    pub fn load(&self, source: &Path, progress: &dyn Progress) -> Result<Vec<Loaded>> {
        self.images.load(source, progress)
    }

    /// Loads the images of an archive that comes as a stream.
    pub fn load_stream(&self, source: impl Read, progress: &dyn Progress) -> Result<Vec<Loaded>> {
        self.images.load_reader(source, progress)
    }

    /// The images these filters let through, the youngest first; each as often as it has names.
    pub fn images(&self, filters: &ImageFilters) -> Result<Vec<Summary>> {
        self.images.list(filters)
    }
}
