// SPDX-License-Identifier: Apache-2.0
//! Where the kernel's source is, and a copy of it to patch and build in: nobody's own tree is touched.

use super::build::run;
use crate::say::Progress;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    Tree(PathBuf),
    Tarball(PathBuf),
}

impl Source {
    /// What the developer named, else what Debian's `linux-source` package installed.
    pub(super) fn find(named: Option<&Path>, series: &str) -> Result<Self> {
        if let Some(path) = named {
            let path =
                path.canonicalize().with_context(|| format!("no kernel source at {}", path.display()))?;
            return Ok(if path.is_dir() { Self::Tree(path) } else { Self::Tarball(path) });
        }
        let debian = format!("/usr/src/linux-source-{series}");
        for suffix in [".tar.xz", ".tar.gz", ".tar"] {
            let tarball = PathBuf::from(format!("{debian}{suffix}"));
            if tarball.is_file() {
                return Ok(Self::Tarball(tarball));
            }
        }
        if Path::new(&debian).is_dir() {
            return Ok(Self::Tree(debian.into()));
        }
        bail!(
            "no kernel source at {debian}.tar.xz: apt install linux-source-{series} (on Debian 12 from \
             bookworm-backports or bookworm-security), or name any {series} tree with --source"
        )
    }

    /// A clean copy beneath `work`, which must be of the series asked for.
    pub(super) fn copy_into(&self, work: &Path, series: &str) -> Result<PathBuf> {
        let to = work.join("source");
        fs::create_dir(&to).with_context(|| format!("cannot make {}", to.display()))?;
        let (progress, mut copy, from) = match self {
            Self::Tree(from) => {
                let progress = Progress::begin(format!("kernel: copying {}", from.display()));
                let mut copy = Command::new("cp");
                copy.args(["-a", "--reflink=auto"]).arg(from.join(".")).arg(&to);
                (progress, copy, from)
            }
            Self::Tarball(from) => {
                let progress = Progress::begin(format!("kernel: unpacking {}", from.display()));
                let mut copy = Command::new("tar");
                copy.arg("-xf").arg(from).arg("-C").arg(&to).arg("--strip-components=1");
                (progress, copy, from)
            }
        };
        run(&mut copy).with_context(|| format!("cannot copy the kernel source {}", from.display()))?;
        let version = version(&to).with_context(|| format!("{} is no kernel source", from.display()))?;
        if version != series && !version.starts_with(&format!("{series}.")) {
            bail!("{} is Linux {version}, but a {series} is needed", from.display());
        }
        if matches!(self, Self::Tree(_)) {
            run(Command::new("make").arg("mrproper").current_dir(&to)).context("cannot clean the copy")?;
        }
        progress.done(&format!("Linux {version}"));
        Ok(to)
    }
}

/// `VERSION.PATCHLEVEL.SUBLEVEL`, from the head of the top Makefile.
fn version(tree: &Path) -> Result<String> {
    let makefile = fs::read_to_string(tree.join("Makefile")).context("it has no Makefile")?;
    let field = |name: &str| {
        makefile.lines().take(10).find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    let part = |name| field(name).with_context(|| format!("its Makefile has no {name}"));
    Ok(format!("{}.{}.{}", part("VERSION")?, part("PATCHLEVEL")?, part("SUBLEVEL")?))
}

#[cfg(test)]
mod tests {
    use super::{Source, version};
    use std::fs;

    #[test]
    fn a_version_is_read_from_the_top_makefile() {
        let tree = tempfile::tempdir().unwrap();
        let text = "# SPDX\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 9\nEXTRAVERSION =\n";
        fs::write(tree.path().join("Makefile"), text).unwrap();
        assert_eq!(version(tree.path()).unwrap(), "6.12.9");
    }

    #[test]
    fn a_source_that_is_not_there_is_named_in_the_error() {
        let error = Source::find(Some("/nonexistent/linux".as_ref()), "6.12").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/linux"));
    }

    #[test]
    fn without_the_package_the_error_names_it() {
        let error = Source::find(None, "0.1").unwrap_err();
        assert!(error.to_string().contains("apt install linux-source-0.1"));
    }
}
