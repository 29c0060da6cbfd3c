// SPDX-License-Identifier: Apache-2.0
//! Images as containers need them: found in the store, and the embedded demo put there when it is first asked for.

mod filter;
mod inspect;
mod pattern;
pub(crate) mod prune;
mod save;
mod verify;

use crate::container::records::Record;
use crate::container::spec::Cwd;
use crate::container::state::State;
use crate::container::word::Word;
use crate::error::{EngineError, Kind, Result};
use isopod_image as image;
use isopod_image::config::Platform;
use isopod_image::unpack::Worker;
use isopod_image::{
    Image, ImageConfig, Kept, Kind as ImageKind, Loaded, Progress, Reference, Removed, Settings, Store,
};
use isopod_jail::Layers;
use std::io::Read;
use std::path::Path;

pub use filter::ImageFilters;
pub use inspect::ImageInspect;

/// `rootfs`'s image as an archive, or nothing.
static DEMO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo.tar"));
const DEMO_NAME: &str = "isopod/demo";
const CREDENTIALS: &str = "`isopod login` keeps credentials, as `docker login` does";
/// What else it may be asked for as.
const DEMO_ALIASES: [&str; 4] = ["isopod/demo", "isopod/demo:latest", "demo", "demo:latest"];

/// When an image is asked for at its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pull {
    #[default]
    Missing,
    Always,
    Never,
}

/// What an image says about running it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Defaults {
    pub(crate) entrypoint: Vec<Word>,
    pub(crate) command: Vec<Word>,
    pub(crate) env: Vec<Word>,
    pub(crate) cwd: Option<Cwd>,
    pub(crate) user: String,
}

impl Defaults {
    pub(crate) fn of(config: &ImageConfig) -> Result<Self> {
        let words = |field: &str, texts: &[String]| -> Result<Vec<Word>> {
            let nul = || EngineError::new(Kind::Invalid, format!("the image's {field} has a NUL byte in it"));
            texts.iter().map(|text| Word::new(text.as_bytes()).ok_or_else(nul)).collect()
        };
        let cwd = match config.working_dir.as_str() {
            "" => None,
            path => Some(Cwd::new(path.as_bytes()).map_err(|e| {
                EngineError::new(Kind::Invalid, "the image's working directory is not possible").because(e)
            })?),
        };
        Ok(Self {
            entrypoint: words("entrypoint", &config.entrypoint)?,
            command: words("command", &config.cmd)?,
            env: words("environment", &config.env)?,
            cwd,
            user: config.user.clone(),
        })
    }
}

#[derive(Debug)]
pub(crate) struct Images {
    store: Store,
}

impl Images {
    pub(crate) fn open(data_root: &Path, layers: Layers) -> Result<Self> {
        let store = Store::open(data_root.join("image")).map_err(translated)?;
        Ok(Self { store: store.taking_apart_by(Worker::Process(layers)) })
    }

    pub(crate) fn resolve(&self, asked: &str) -> Result<Image> {
        let demo = DEMO_ALIASES.contains(&asked);
        match self.store.resolve(if demo { DEMO_NAME } else { asked }) {
            Err(e) if e.kind() == ImageKind::NotFound && demo => self.resolve_demo(),
            Err(e) if e.kind() == ImageKind::NotFound => Err(translated(e).hint(
                "`isopod images` lists what is here; `isopod pull` and `isopod load -i FILE` add to it",
            )),
            result => result.map_err(translated),
        }
    }

    /// Sees to it that the image is here, as far as `pull` goes. Gives what was pulled.
    pub(crate) fn provide(&self, asked: &str, pull: Pull, progress: &dyn Progress) -> Result<Option<Loaded>> {
        let wanted = match pull {
            Pull::Never => false,
            // What is in this program is never older than what it was asked for as.
            _ if DEMO_ALIASES.contains(&asked) => false,
            Pull::Missing => !self.store.has_image(asked).map_err(translated)?,
            Pull::Always => true,
        };
        wanted.then(|| self.pull(asked, None, progress)).transpose()
    }

    /// The image of this name, for a platform that may be another than this host's.
    pub(crate) fn pull(
        &self,
        asked: &str,
        platform: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Loaded> {
        let reference = asked.parse::<Reference>().map_err(translated)?;
        let platform = platform.map_or_else(|| Ok(Platform::host()), str::parse).map_err(translated)?;
        self.store.pull(&reference, &platform, &settings()?, progress).map_err(not_pulled)
    }

    /// All images of a repository that have tags, by their names.
    pub(crate) fn tags(asked: &str) -> Result<Vec<String>> {
        let reference = asked.parse::<Reference>().map_err(translated)?;
        if asked.contains('@') || asked.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            return Err(EngineError::new(Kind::Invalid, "of all tags none can be named")
                .hint("name the repository alone, without a tag and without a digest"));
        }
        let tags = image::tags(&reference, &settings()?).map_err(not_pulled)?;
        Ok(tags.iter().map(Reference::to_string).collect())
    }

    /// Tries a name and a password at a registry, and keeps them if it takes them.
    pub(crate) fn log_in(registry: &str, name: &str, secret: &str) -> Result<Kept> {
        image::log_in(&domain(registry)?, name, secret, &settings()?).map_err(translated)
    }

    pub(crate) fn log_out(registry: &str) -> Result<bool> {
        image::log_out(&domain(registry)?, &settings()?).map_err(translated)
    }

    /// Pushes an image to where its name says. Gives its digest.
    pub(crate) fn push(&self, name: &str, progress: &dyn Progress) -> Result<String> {
        let reference = name.parse::<Reference>().map_err(translated)?;
        let pushed = self.store.push(&reference, &settings()?, progress);
        pushed.map(|digest| digest.to_string()).map_err(|error| match error.kind() {
            ImageKind::Denied => translated(error).hint(CREDENTIALS),
            ImageKind::NotFound => {
                translated(error).hint("`isopod tag` gives an image the name of where it is to go")
            }
            _ => translated(error),
        })
    }

    pub(crate) fn tag(&self, image: &str, name: &str) -> Result<()> {
        let name = name.parse::<Reference>().map_err(translated)?;
        self.store.tag(self.stored(image)?, &name).map_err(translated)
    }

    /// Removes an image that none of these containers is of; `force` only saves those that are over from being asked.
    pub(crate) fn remove(&self, asked: &str, force: bool, containers: &[Record]) -> Result<Removed> {
        let mut needed_by = None;
        let removed = self.store.remove(self.stored(asked)?, force, &mut |digest| {
            let digest = digest.to_string();
            let needs = |record: &&Record| {
                record.image_digest == digest && (!force || !matches!(record.state, State::Exited(_)))
            };
            needed_by = containers.iter().find(needs);
            needed_by.is_none()
        });
        removed.map_err(|error| match (error.kind(), needed_by) {
            (ImageKind::InUse, Some(record)) => needed(asked, record),
            (ImageKind::InUse, None) => translated(error).hint("name one of them, or take all with -f"),
            _ => translated(error),
        })
    }

    /// What is asked for, as the store knows it.
    fn stored<'a>(&self, asked: &'a str) -> Result<&'a str> {
        if !DEMO_ALIASES.contains(&asked) {
            return Ok(asked);
        }
        self.resolve(asked).map(|_| DEMO_NAME)
    }

    fn resolve_demo(&self) -> Result<Image> {
        if DEMO.is_empty() {
            return Err(EngineError::new(Kind::NotFound, "this build has no demo image")
                .hint("run `cargo xtask rootfs` and build again"));
        }
        let loaded = self.store.load_reader(DEMO, &()).map_err(translated)?;
        let first = loaded.first().map(|image| image.digest.to_string());
        self.store.resolve(&first.unwrap_or_default()).map_err(translated)
    }

    pub(crate) fn load(&self, source: &Path, progress: &dyn Progress) -> Result<Vec<Loaded>> {
        self.store.load(source, progress).map_err(translated)
    }

    pub(crate) fn load_reader(&self, source: impl Read, progress: &dyn Progress) -> Result<Vec<Loaded>> {
        self.store.load_reader(source, progress).map_err(translated)
    }
}

fn settings() -> Result<Settings> {
    Settings::from_env().map_err(translated)
}

/// What was typed for a registry, which may look like an address, as the first part of an image's name.
fn domain(registry: &str) -> Result<String> {
    let host = registry.split_once("://").map_or(registry, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    let reference = format!("{host}/x").parse::<Reference>().map_err(translated)?;
    if reference.domain() != host && host != "index.docker.io" {
        let what = format!("`{}` is no registry", registry.escape_debug());
        return Err(EngineError::new(Kind::Invalid, what)
            .hint("a registry is a host name with a dot, or with a port"));
    }
    Ok(reference.domain().to_owned())
}

fn needed(image: &str, record: &Record) -> EngineError {
    let what = format!("container {} is of image {image}, and {}", record.name, record.state.name());
    let hint = match record.state {
        State::Exited(_) => format!("remove it with `isopod rm {}`, or this image with -f", record.name),
        _ => format!("end it and remove it with `isopod rm -f {}`", record.name),
    };
    EngineError::new(Kind::Conflict, what).hint(hint)
}

/// How large the embedded demo is; 0 if there is none.
pub(crate) fn demo_size() -> usize {
    DEMO.len()
}

fn not_pulled(error: image::ImageError) -> EngineError {
    let hint = match error.kind() {
        ImageKind::Denied => CREDENTIALS,
        ImageKind::Network => "`isopod load` takes images from files, where no registry can be reached",
        ImageKind::NotFound => "names are [REGISTRY/]REPOSITORY[:TAG|@DIGEST]; is this one right?",
        _ => return translated(error),
    };
    translated(error).hint(hint)
}

/// An error of what looks at all images, which one that is damaged keeps it from.
fn damaged(error: image::ImageError) -> EngineError {
    let kind = error.kind();
    let error = translated(error);
    match kind {
        ImageKind::Invalid | ImageKind::NotFound => {
            error.hint("`isopod system verify` tells what is damaged, and mends it with --repair")
        }
        _ => error,
    }
}

/// The image room's error as one of ours; its own words stay, its causes hang on.
fn translated(error: image::ImageError) -> EngineError {
    let kind = match error.kind() {
        ImageKind::NotFound => Kind::NotFound,
        ImageKind::Invalid | ImageKind::Corrupt | ImageKind::TooLarge => Kind::Invalid,
        ImageKind::Unsupported => Kind::Unsupported,
        ImageKind::InUse => Kind::Conflict,
        ImageKind::Denied => Kind::Denied,
        ImageKind::NoSpace => {
            return EngineError::from_other(Kind::Unavailable, error)
                .hint("`isopod images` lists what is here, and `isopod rmi` removes it, on a full disk too");
        }
        ImageKind::Network | ImageKind::Io => Kind::Io,
    };
    EngineError::from_other(kind, error)
}
