// SPDX-License-Identifier: Apache-2.0
//! Podman and Buildah read what isopod pushes, and isopod runs what they make. Both take root here.

use crate::support::layout::tool;
use crate::support::registry::Registry;
use crate::support::{Host, finish};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Podman's and Buildah's store, of the test's own.
#[derive(Debug)]
struct Containers(PathBuf);

impl Containers {
    fn of(host: &Host) -> Self {
        let root = host.scratch("containers");
        fs::create_dir(&root).unwrap();
        Self(root)
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        command.arg("--root").arg(self.0.join("root")).arg("--runroot").arg(self.0.join("run"));
        // Copies instead of mounts: what a test leaves mounted outlives it.
        command.args(["--storage-driver", "vfs"]).args(args);
        String::from_utf8(tool(&mut command)).unwrap().trim().to_owned()
    }
}

#[test]
fn podman_and_buildah_read_what_isopod_pushes_and_isopod_runs_what_they_make() {
    let (host, registry) = (Host::new(), Registry::open());
    let containers = Containers::of(&host);
    let name = |path: &str| format!("{}/{path}", registry.host());
    host.isopod(&["run", "--rm", "demo", "true"]).expect(0);
    let (pushed, made) = (name("tools/demo:1"), name("made:1"));
    host.isopod(&["tag", "demo", &pushed]).expect(0);
    host.isopod(&["push", "-q", &pushed]).expect(0);

    containers.run("podman", &["pull", "-q", "--tls-verify=false", &pushed]);
    let digest = containers.run("podman", &["image", "inspect", "--format", "{{.Digest}}", &pushed]);
    let ours = host.isopod(&["images", "--digests", "--format", "{{.Tag}} {{.Digest}}"]).expect(0);
    assert!(ours.text().lines().any(|line| line == format!("1 {digest}")), "{digest}: {}", ours.text());
    // To run it takes a host with cgroups in one hierarchy; to read it does not.
    let mounted = containers.run("podman", &["image", "mount", &pushed]);
    let words = fs::read_to_string(format!("{mounted}/etc/passwd")).unwrap();
    let command = host.command(&["run", "--rm", "--entrypoint", "", &pushed, "cat", "/etc/passwd"]).spawn();
    assert_eq!(finish(command.unwrap(), Vec::new()).expect(0).text(), words);
    containers.run("podman", &["image", "unmount", &pushed]);

    let container = containers.run("buildah", &["from", "--pull-never", &pushed]);
    let file = host.file("words", b"by buildah\n");
    containers.run("buildah", &["copy", &container, file.to_str().unwrap(), "/words"]);
    containers.run("buildah", &["commit", "-q", &container, "made"]);
    containers.run("buildah", &["push", "-q", "--tls-verify=false", "made", &format!("docker://{made}")]);
    containers.run("buildah", &["rm", &container]);
    let command = host.command(&["run", "--rm", "--entrypoint", "", &made, "cat", "/words"]).spawn();
    assert_eq!(finish(command.unwrap(), Vec::new()).expect(0).text(), "by buildah\n");
    host.assert_clean();
}
