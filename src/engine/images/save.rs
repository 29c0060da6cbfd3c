// SPDX-License-Identifier: Apache-2.0
//! Images saved as an archive: in a file that is there once it is whole, or into a stream.

use super::{Images, translated};
use crate::Engine;
use crate::error::{EngineError, Kind, Result};
use isopod_image::{ArchiveForm, Kind as ImageKind, Progress};
use isopod_sys::unnamed::Unnamed;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Of the file: an image may be nobody else's business.
const MODE: u32 = 0o600;

impl Engine {
    /// Saves images in a file. Until all of it is written, what has its name stays as it is.
    pub fn save(
        &self,
        images: &[String],
        form: ArchiveForm,
        to: &Path,
        progress: &dyn Progress,
    ) -> Result<()> {
        let cannot = || format!("cannot write {}", to.display());
        let (folder, name) = place(to).map_err(|e| e.within(&cannot()))?;
        let file = Unnamed::new(&folder, MODE).map_err(EngineError::io(cannot()))?;
        self.images.save(images, form, file.file(), progress)?;
        let whole = file.file().sync_all().and_then(|()| file.link(&name));
        whole.map(drop).map_err(EngineError::io(cannot()))
    }

    /// Saves images into a stream.
    pub fn save_stream(
        &self,
        images: &[String],
        form: ArchiveForm,
        to: impl Write,
        progress: &dyn Progress,
    ) -> Result<()> {
        self.images.save(images, form, to, progress)
    }
}

impl Images {
    fn save(
        &self,
        images: &[String],
        form: ArchiveForm,
        to: impl Write,
        progress: &dyn Progress,
    ) -> Result<()> {
        let stored = images.iter().map(|image| self.stored(image)).collect::<Result<Vec<_>>>()?;
        self.store.save(&stored, form, to, progress).map_err(|error| match error.kind() {
            ImageKind::NotFound => translated(error).hint("`isopod images` lists what is here"),
            _ => translated(error),
        })
    }
}

/// The folder of a file that is to be, and its name there. A link leads to what it is of; what is no file is left alone.
fn place(to: &Path) -> Result<(PathBuf, String)> {
    let invalid = |what: &str| EngineError::new(Kind::Invalid, what);
    let to = match fs::metadata(to) {
        Ok(found) if !found.is_file() => {
            return Err(invalid("there is something that is no file")
                .hint("without -o the archive goes to stdout, which can lead anywhere"));
        }
        Ok(_) => fs::canonicalize(to).map_err(EngineError::io("it cannot be found"))?,
        Err(_) => to.to_owned(),
    };
    let name =
        to.file_name().and_then(|name| name.to_str()).ok_or_else(|| invalid("it is no file's name"))?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((folder.to_owned(), name.to_owned()))
}
