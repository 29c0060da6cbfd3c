// SPDX-License-Identifier: Apache-2.0
//! From a container's command line to a running program.

use crate::failure::{Doing, Failure};
use isopod_protocol::message::{Container, FailedKind};
use isopod_sys::process::{Strings, execute};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;

/// Docker's, for a container that has none.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command ready to be executed.
#[derive(Debug)]
pub(crate) struct Command {
    candidates: Vec<CString>,
    name: String,
    args: Strings,
    env: Strings,
}

impl Command {
    /// With `home` for a container that has no HOME.
    pub(crate) fn new(container: &Container, home: &[u8]) -> Result<Self, Failure> {
        let Some(program) = container.args.first().filter(|program| !program.is_empty()) else {
            return Err(Failure::setup("no command was given"));
        };
        let mut env = container.env.clone();
        if variable(&env, b"HOME").is_none() {
            env.push([b"HOME=", home].concat());
        }
        let path = variable(&env, b"PATH").unwrap_or(PATH);
        Ok(Self {
            candidates: strings(candidates(program, path, container.folders_without))
                .doing("execute", program)?,
            name: String::from_utf8_lossy(program).into_owned(),
            args: Strings::new(strings(container.args.clone()).doing("pass on", "the arguments")?),
            env: Strings::new(strings(env).doing("pass on", "the environment")?),
        })
    }

    /// Becomes the program; comes back only if that is impossible.
    pub(crate) fn execute(&self) -> Failure {
        let mut worst = None;
        for program in &self.candidates {
            let error = execute(program, &self.args, &self.env);
            match Errno::from_io_error(&error) {
                // The next one may be it.
                Some(Errno::NOENT | Errno::NOTDIR) => {}
                Some(Errno::ACCESS) => worst = Some(error),
                _ => return refused(&program.to_string_lossy(), &error),
            }
        }
        match worst {
            Some(error) => refused(&self.name, &error),
            None => Failure::new(
                FailedKind::NotFound,
                format!("cannot execute {}: it, or its interpreter, is not there", self.name),
            ),
        }
    }
}

fn refused(program: &str, error: &io::Error) -> Failure {
    let kind = match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM | Errno::NOEXEC | Errno::ISDIR | Errno::LIBBAD | Errno::TXTBSY) => {
            FailedKind::NotExecutable
        }
        _ => FailedKind::Setup,
    };
    Failure::new(kind, format!("cannot execute {program}: {error}"))
}

/// Where to look for a program, as execvp does; folders of PATH that are not absolute are passed over, and so are the
/// first `without`, which the host knows to lack it.
fn candidates(program: &[u8], path: &[u8], without: u32) -> Vec<Vec<u8>> {
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let without = usize::try_from(without).unwrap_or(0);
    let folders = path.split(|&b| b == b':').skip(without).filter(|folder| folder.starts_with(b"/"));
    folders.map(|folder| [folder, b"/", program].concat()).collect()
}

fn variable<'a>(env: &'a [Vec<u8>], name: &[u8]) -> Option<&'a [u8]> {
    env.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(b"="))
}

fn strings(bytes: Vec<Vec<u8>>) -> Result<Vec<CString>, &'static str> {
    bytes.into_iter().map(|bytes| CString::new(bytes).map_err(|_| "it has a NUL in it")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_each_folder_of_the_path() {
        let found = candidates(b"sh", b"/a:relative::/b", 0);
        assert_eq!(found, [b"/a/sh".to_vec(), b"/b/sh".to_vec()]);
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        assert_eq!(candidates(b"./sh", b"/a:/b", 1), [b"./sh".to_vec()]);
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let env = [b"HOMER=1".to_vec(), b"HOME=".to_vec()];
        assert_eq!(variable(&env, b"HOME"), Some(&b""[..]));
        assert_eq!(variable(&env, b"HOM"), None);
    }

    #[test]
    fn nothing_to_execute_is_an_error() {
        assert!(Command::new(&Container::default(), b"/").is_err());
        let container = Container { args: vec![b"a\0b".to_vec()], ..Default::default() };
        assert!(Command::new(&container, b"/").is_err());
    }
}
