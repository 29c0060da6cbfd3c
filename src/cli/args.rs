// SPDX-License-Identifier: Apache-2.0
//! Values that several flags share the form of: parsed into meaning once, with the flag's name in the error.

use super::human;
use isopod_engine::capabilities::Capabilities;
use isopod_engine::seccomp;
use isopod_engine::spec::{Memory, Seccomp, SecuritySpec, TmpfsMount, UNLIMITED, Ulimit, Vcpus};
use isopod_engine::{EngineError, Kind, Layers, Result, UnknownLayer};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::result::Result as StdResult;

/// An error about what a flag was given.
pub(super) fn bad(flag: &str, value: &str, why: impl Into<Box<dyn Error + Send + Sync>>) -> EngineError {
    EngineError::new(Kind::Invalid, format!("{flag} {} is not possible", value.escape_debug())).because(why)
}

pub(super) fn memory(text: &str) -> Result<Memory> {
    let bytes = human::bytes(text)
        .ok_or_else(|| bad("--memory", text, "a size is a number and one of b, k, m, g"))?;
    Memory::from_bytes(bytes).map_err(|e| bad("--memory", text, e).hint("the default is 256m"))
}

pub(super) fn cpus(text: &str) -> Result<Vcpus> {
    match text.parse::<u32>() {
        Ok(count) => Vcpus::new(count).map_err(|e| bad("--cpus", text, e)),
        Err(_) if text.parse::<f64>().is_ok_and(|n| n > 0.0) => {
            let what = format!("--cpus {} is not supported", text.escape_debug());
            Err(EngineError::new(Kind::Unsupported, what)
                .because(
                    "a machine has whole CPUs, and shares of one need a control group, which is yet to come",
                )
                .hint("give a whole number"))
        }
        Err(_) => Err(bad("--cpus", text, "a whole number is needed")),
    }
}

/// `NAME=SOFT[:HARD]`; -1 is unlimited.
pub(super) fn ulimit(text: &str) -> Result<Ulimit> {
    let bad = |why: &str| bad("--ulimit", text, why);
    let (name, limits) = text.split_once('=').ok_or_else(|| bad("the form is NAME=SOFT[:HARD]"))?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |n: &str| match n {
        "-1" | "unlimited" => Ok(UNLIMITED),
        n => n.parse().map_err(|_| bad("a limit is a number, or -1 for none")),
    };
    Ulimit::new(name, number(soft)?, number(hard)?).map_err(|e| self::bad("--ulimit", text, e))
}

/// `PATH[:OPTIONS]`.
pub(super) fn tmpfs(text: &str) -> Result<TmpfsMount> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    TmpfsMount::new(path, options).map_err(|e| bad("--tmpfs", text, e))
}

/// `KEY[=VALUE]`.
pub(super) fn labels(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => Err(bad("--label", text, "a label needs a name")),
        (key, value) => Ok((key.to_owned(), value.to_owned())),
    };
    texts.iter().map(pair).collect()
}

pub(super) fn capabilities(add: &[String], drop: &[String]) -> Result<Capabilities> {
    Capabilities::tweaked(add, drop).map_err(|e| {
        EngineError::new(Kind::Invalid, "--cap-add or --cap-drop is not possible")
            .because(e)
            .hint("names are those of capabilities(7), with or without CAP_, or ALL")
    })
}

pub(super) fn security(options: &[String], capabilities: Capabilities) -> Result<SecuritySpec> {
    let mut security = SecuritySpec { capabilities, ..SecuritySpec::default() };
    for option in options {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("isopod.jail", layers) => {
                let layers: Layers = layers.parse().map_err(|e| bad("--security-opt", option, e))?;
                security.unjailed = security.unjailed | layers;
            }
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin" | "default") => security.seccomp = Seccomp::Default,
            ("seccomp", path) if !path.is_empty() => security.seccomp = profile(path, capabilities)?,
            ("systempaths", "unconfined") => security.system_paths_unconfined = true,
            ("apparmor" | "label", "unconfined" | "disable") => {}
            ("apparmor" | "label", _) => {
                let what = format!("--security-opt {} is not supported", option.escape_debug());
                return Err(EngineError::new(Kind::Unsupported, what).because(
                    "the guest's kernel has neither AppArmor nor SELinux: the machine is the wall",
                ));
            }
            _ => {
                return Err(bad("--security-opt", option, "no such option").hint(
                    "options are seccomp=unconfined, seccomp=FILE, no-new-privileges, systempaths=unconfined and isopod.jail=no-LAYER,…",
                ));
            }
        }
    }
    Ok(security)
}

/// Layers of the jail to be left out; an empty variable is none.
pub(super) fn layers(text: &str) -> StdResult<Layers, UnknownLayer> {
    if text.is_empty() { Ok(Layers::NONE) } else { text.parse() }
}

fn profile(path: &str, capabilities: Capabilities) -> Result<Seccomp> {
    let flag = format!("seccomp={path}");
    let text = fs::read_to_string(path).map_err(|e| bad("--security-opt", &flag, e))?;
    let profile = seccomp::parse(&text, capabilities).map_err(|e| {
        let what = format!("--security-opt {} is not supported", flag.escape_debug());
        EngineError::new(Kind::Unsupported, what).because(e)
    })?;
    Ok(Seccomp::Profile(profile))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn eight_mib_are_refused_with_the_flag_and_the_minimum() {
        let error = memory("8m").unwrap_err();
        assert!(error.to_string().contains("--memory 8m"), "{error}");
        assert!(error.source().unwrap().to_string().contains("32 MiB"));
    }

    #[test]
    fn a_share_of_a_cpu_is_unsupported_and_none_or_a_thousand_invalid() {
        assert_eq!(cpus("1.5").unwrap_err().kind(), Kind::Unsupported);
        for bad in ["0", "1000", "-1", "two", "", "nan"] {
            assert_eq!(cpus(bad).unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
        assert_eq!(cpus("2").unwrap().count(), 2);
    }

    #[test]
    fn limits_have_one_or_two_numbers() {
        assert_eq!(ulimit("nofile=1024:2048").unwrap(), Ulimit::new("nofile", 1024, 2048).unwrap());
        assert_eq!(ulimit("core=-1").unwrap(), Ulimit::new("core", UNLIMITED, UNLIMITED).unwrap());
        for bad in ["nofile", "nofile=", "nofile=2:1", "nofile=1:2:3", "files=1", "nofile=x"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tmpfs_is_a_path_and_options() {
        assert_eq!(tmpfs("/run:rw,size=64m").unwrap(), TmpfsMount::new("/run", "rw,size=64m").unwrap());
        assert!(tmpfs("run").is_err() && tmpfs("/run:upperdir=/x").is_err());
    }

    #[test]
    fn security_options_are_told_apart() {
        let options =
            own(&["seccomp=unconfined", "no-new-privileges", "systempaths=unconfined", "label=disable"]);
        let security = security(&options, Capabilities::DEFAULT).unwrap();
        assert_eq!(security.seccomp, Seccomp::Unconfined);
        assert!(security.no_new_privileges && security.system_paths_unconfined);
    }

    #[test]
    fn what_the_guest_has_not_is_unsupported_and_what_nobody_has_invalid() {
        let kind = |option| security(&own(&[option]), Capabilities::DEFAULT).unwrap_err().kind();
        assert_eq!(kind("apparmor=docker-default"), Kind::Unsupported);
        assert_eq!(kind("label=type:x"), Kind::Unsupported);
        assert_eq!(kind("no-such=thing"), Kind::Invalid);
        assert_eq!(kind("no-new-privileges=perhaps"), Kind::Invalid);
        assert_eq!(kind("seccomp=/nonexistent.json"), Kind::Invalid);
    }

    #[test]
    fn labels_may_be_empty_but_not_nameless() {
        let labels = labels(&own(&["a=b=c", "d"])).unwrap();
        assert_eq!((labels["a"].as_str(), labels["d"].as_str()), ("b=c", ""));
        assert!(super::labels(&own(&["=x"])).is_err());
    }
}
