// SPDX-License-Identifier: Apache-2.0
//! What all of it takes of the disk, and how much of that nobody needs.
//!
//! | | active | reclaimable |
//! |---|---|---|
//! | images | a container or a snapshot is of it | what only images that are not active have |
//! | containers | it has not ended | those that have |
//! | snapshots | always: they are what somebody wrote down | nothing |
//! | templates | this isopod would use it | the others, as after an update |
//! | stray | never: what a killed process left leads nowhere | all of it |

pub(crate) mod prune;

use crate::container::records::Record;
use crate::error::{EngineError, Result};
use crate::{Engine, SnapshotSummary, TemplateSummary, kernel, kvm};
use isopod_image::{Stray, Usage, on_disk};
use std::fs;
use std::path::{Path, PathBuf};

/// What each kind of thing takes.
#[derive(Debug, Clone)]
pub struct DiskUsage {
    pub images: Usage,
    /// How many of the images a container or a snapshot is of.
    pub needed: usize,
    pub containers: Vec<ContainerUsage>,
    pub snapshots: Vec<SnapshotSummary>,
    pub templates: Vec<TemplateSummary>,
    /// What leads nowhere, that of the images too.
    pub stray: Stray,
}

#[derive(Debug, Clone)]
pub struct ContainerUsage {
    pub record: Record,
    pub bytes: u64,
}

/// One kind's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub kind: &'static str,
    pub total: usize,
    pub active: usize,
    pub bytes: u64,
    pub reclaimable: u64,
}

impl DiskUsage {
    pub fn shares(&self) -> [Share; 5] {
        let Self { images, needed, containers, snapshots, templates, stray } = self;
        let share =
            |kind, total, active, (bytes, reclaimable)| Share { kind, total, active, bytes, reclaimable };
        let ended = |container: &&ContainerUsage| container.record.state.is_over();
        let unusable = |template: &&TemplateSummary| !template.usable;
        let of_containers: u64 = containers.iter().map(|container| container.bytes).sum();
        let of_ended: u64 = containers.iter().filter(ended).map(|container| container.bytes).sum();
        let of_templates: u64 = templates.iter().map(|template| template.size).sum();
        let of_unusable: u64 = templates.iter().filter(unusable).map(|template| template.size).sum();
        let running = containers.len() - containers.iter().filter(ended).count();
        let usable = templates.len() - templates.iter().filter(unusable).count();
        let written = snapshots.iter().map(|snapshot| snapshot.size).sum();
        [
            share("Images", images.images.len(), *needed, (images.bytes, images.reclaimable)),
            share("Containers", containers.len(), running, (of_containers, of_ended)),
            share("Snapshots", snapshots.len(), snapshots.len(), (written, 0)),
            share("Templates", templates.len(), usable, (of_templates, of_unusable)),
            share("Stray files", stray.count, 0, (stray.bytes, stray.bytes)),
        ]
    }
}

impl Engine {
    /// What all of it takes of the disk.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let needed = self.needed_images()?;
        let images = self.images.usage(&needed)?;
        let containers = self.list(true)?.into_iter().map(|record| {
            let bytes = on_disk(&self.records.folder(&record.id));
            ContainerUsage { record, bytes }
        });
        let stray = self
            .strays()?
            .iter()
            .fold(images.stray, |sum, path| Stray { count: sum.count + 1, bytes: sum.bytes + on_disk(path) });
        Ok(DiskUsage {
            containers: containers.collect(),
            snapshots: self.snapshots.list()?,
            templates: self.known_templates()?,
            needed: images.images.iter().filter(|image| needed.contains(&image.digest.to_string())).count(),
            images,
            stray,
        })
    }

    /// The templates there are. Where there is no KVM or no kernel they are all taken to be usable.
    fn known_templates(&self) -> Result<Vec<TemplateSummary>> {
        let host = kernel::find(None).and_then(|kernel| Ok((kernel, kvm::open(self.templates.run_root())?)));
        self.templates.list(host.as_ref().ok().map(|(kernel, kvm)| (kernel, kvm)))
    }

    /// Files that were to be snapshots or templates when their writer was killed.
    fn strays(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for folder in ["snapshots", "templates"] {
            let folder = self.templates.data_root().join(folder);
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries {
                let entry = entry.map_err(EngineError::io(format!("cannot read {}", folder.display())))?;
                found.extend(is_stray(&entry.file_name().to_string_lossy()).then(|| entry.path()));
            }
        }
        Ok(found)
    }
}

/// Whether a file has the name for the moment (`sys::unnamed`) of a process that is gone.
fn is_stray(name: &str) -> bool {
    let pid = name.strip_prefix(".new.").and_then(|rest| rest.split('.').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process;

    #[test]
    fn what_a_live_process_writes_is_no_stray() {
        assert!(!is_stray(&format!(".new.{}.0", process::id())));
        assert!(is_stray(".new.4194305.0"));
        for other in ["lock", "x.template", ".new.", ".new.x.0"] {
            assert!(!is_stray(other), "{other}");
        }
    }
}
