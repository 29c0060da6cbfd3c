// SPDX-License-Identifier: Apache-2.0
//! The kernel's `.config`: the fragments over allnoconfig, merged by the kernel's own script, and then checked: an
//! option that was asked for and silently not granted (a dependency missing, a name gone) is an error here.

use super::build::{make_command, run};
use super::manifest::Manifest;
use crate::say::Progress;
use anyhow::{Context, Result, bail};
use isopod_kernel_config::input;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

pub(super) fn configure(tree: &Path, manifest: &Manifest, debug: bool) -> Result<()> {
    let progress = Progress::begin("kernel: configuring");
    let mut fragments = manifest.fragments()?;
    if debug {
        fragments.push(input("debug.config").context("debug.config is not among the inputs")?);
    }
    let mut merge = make_command(tree, "scripts/kconfig/merge_config.sh");
    merge.arg("-n");
    let mut asked = Vec::new();
    for fragment in &fragments {
        let path = tree.join(fragment.name);
        fs::write(&path, fragment.contents).with_context(|| format!("cannot write {}", path.display()))?;
        merge.arg(fragment.name);
        asked.extend(options(fragment.contents));
    }
    run(&mut merge).context("cannot merge the kernel's configuration")?;
    let config = fs::read_to_string(tree.join(".config")).context("the merge left no .config")?;
    let refused = refused(&asked, &config);
    if !refused.is_empty() {
        bail!("the kernel's configuration did not take these options as asked: {}", refused.join(", "));
    }
    progress.done(&format!("{} options asked for", asked.len()));
    Ok(())
}

/// The `CONFIG_X=value` lines; `# CONFIG_X is not set` counts as `n`.
fn options(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let off = line.strip_prefix("# ").and_then(|line| line.strip_suffix(" is not set"));
        let option = off.map(|name| (name, "n")).or_else(|| line.split_once('='))?;
        option.0.starts_with("CONFIG_").then_some(option)
    })
}

fn refused(asked: &[(&str, &str)], config: &str) -> Vec<String> {
    let granted: HashMap<&str, &str> = options(config).collect();
    // The last fragment to name an option decides.
    let wanted: HashMap<&str, &str> = asked.iter().copied().collect();
    let mut refused: Vec<String> = wanted
        .iter()
        .filter(|(name, value)| granted.get(*name).unwrap_or(&"n") != *value)
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    refused.sort();
    refused
}

#[cfg(test)]
mod tests {
    use super::{options, refused};

    #[test]
    fn an_option_that_did_not_take_is_named() {
        let asked: Vec<_> = options("# why\nCONFIG_A=y\nCONFIG_B=\"b\"\n# CONFIG_C is not set\n").collect();
        assert!(refused(&asked, "CONFIG_A=y\nCONFIG_B=\"b\"\n").is_empty());
        assert_eq!(
            refused(&asked, "# CONFIG_A is not set\nCONFIG_C=y\nCONFIG_B=\"b\"\n"),
            ["CONFIG_A=y", "CONFIG_C=n"]
        );
    }

    #[test]
    fn a_later_fragment_overrules_an_earlier_one() {
        assert!(refused(&[("CONFIG_A", "y"), ("CONFIG_A", "n")], "").is_empty());
    }
}
