// SPDX-License-Identifier: Apache-2.0
//! Images from a real registry: pulled when they are asked for, once, and only by who may have them.

use crate::support::layout::{Layer, Layout};
use crate::support::nasty::{Tar, file};
use crate::support::registry::{PASSWORD, Registry, USER};
use crate::support::{Host, Run, finish};
use std::fs;
use std::process::{Command, Stdio};

/// The demo image as `make` makes it.
const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/rootfs/demo.tar");

/// isopod with a place of the test's own where it looks for credentials and certificates.
fn at_home(host: &Host, args: &[&str]) -> Command {
    let mut command = host.command(args);
    command.env("DOCKER_CONFIG", host.scratch("docker")).env("XDG_CONFIG_HOME", host.scratch("config"));
    command
}

fn run(host: &Host, args: &[&str]) -> Run {
    finish(at_home(host, args).spawn().unwrap(), Vec::new())
}

/// Logs in with a password on stdin.
fn log_in(host: &Host, registry: &Registry, password: &str) -> Run {
    let args = ["login", "-u", USER, "--password-stdin", registry.host()];
    let mut command = at_home(host, &args);
    finish(command.stdin(Stdio::piped()).spawn().unwrap(), format!("{password}\n").into_bytes())
}

/// Trusts the registry's own authority.
fn trust(host: &Host, registry: &Registry) {
    let certificates = host.scratch("config/docker/certs.d").join(registry.host());
    fs::create_dir_all(&certificates).unwrap();
    fs::copy(registry.authority(), certificates.join("ca.crt")).unwrap();
}

#[test]
fn what_is_pushed_is_what_others_pull_byte_for_byte() {
    let (host, open, guarded) = (Host::new(), Registry::open(), Registry::guarded());
    trust(&host, &guarded);
    log_in(&host, &guarded, PASSWORD).expect(0);
    open.push(&format!("oci-archive:{DEMO}"), "from:1");
    let from = format!("{}/from:1", open.host());
    run(&host, &["pull", "-q", &from]).expect(0);
    for registry in [&open, &guarded] {
        let to = format!("{}/deep/er/to:2", registry.host());
        host.isopod(&["tag", &from, &to]).expect(0);
        let pushed = run(&host, &["push", &to]).expect(0);
        assert_eq!(pushed.text(), format!("{to}\n"));
        assert!(pushed.stderr.contains(&format!("Digest: {}", open.digest("from:1"))), "{}", pushed.stderr);
        assert_eq!(registry.digest("deep/er/to:2"), open.digest("from:1"));
        let again = run(&host, &["push", &to]).expect(0);
        assert!(
            again.stderr.contains("already there") && !again.stderr.contains("pushed"),
            "{}",
            again.stderr
        );
    }
    run(&host, &["logout", guarded.host()]).expect(0);
    let refused = run(&host, &["push", &format!("{}/deep/er/to:2", guarded.host())]).expect(1);
    assert!(refused.stderr.contains("no credentials"), "{}", refused.stderr);
    let unknown = run(&host, &["push", &format!("{}/never", open.host())]).expect(1);
    assert!(unknown.stderr.contains("there is no image"), "{}", unknown.stderr);
    host.assert_clean();
}

#[test]
fn an_image_is_pulled_when_it_is_run_and_its_layers_come_once() {
    let (host, registry) = (Host::new(), Registry::open());
    registry.push(&format!("oci-archive:{DEMO}"), "tools/demo:1");
    let name = format!("{}/tools/demo:1", registry.host());
    let missing = run(&host, &["run", "--rm", "--pull", "never", &name]).expect(125);
    assert!(missing.stderr.contains("no image"), "{}", missing.stderr);
    let args = ["run", "--rm", "--entrypoint", "", &name, "echo", "up"];
    assert_eq!(run(&host, &args).expect(0).text(), "up\n");
    let blobs = registry.requests("GET /v2/tools/demo/blobs/");
    assert!(blobs > 0, "the log tells requests");
    assert_eq!(run(&host, &args).expect(0).text(), "up\n");
    let again = run(&host, &["pull", &name]).expect(0);
    assert_eq!(again.text(), format!("{name}\n"));
    let config = registry.requests("GET /v2/tools/demo/blobs/") - blobs;
    assert!(config <= 1, "only a configuration is asked for again: {config} blobs");
    host.assert_clean();
}

#[test]
fn an_image_is_pulled_by_its_digest_and_no_other_is_taken_for_it() {
    let (host, registry) = (Host::new(), Registry::open());
    let layout = |text: &str| {
        let layer = Layer::gzip(&Tar::of(vec![file("which", text)]));
        Layout::new("x", vec![layer]).write(&host.scratch(text))
    };
    registry.push(&format!("oci:{}:x", layout("one").display()), "a:latest");
    let tag = format!("{}/a", registry.host());
    let digest = |run: Run| run.stderr.rsplit("Digest: ").next().unwrap().trim().to_owned();
    let one = digest(run(&host, &["pull", &tag]).expect(0));
    registry.push(&format!("oci:{}:x", layout("two").display()), "a:latest");
    let two = digest(run(&host, &["pull", &tag]).expect(0));
    assert_ne!(one, two);
    let by_digest = run(&host, &["pull", "-q", &format!("{tag}@{one}")]).expect(0);
    assert_eq!((by_digest.text(), by_digest.stderr.as_str()), (format!("{tag}@{one}\n").as_str(), ""));
    let none = run(&host, &["pull", &format!("{tag}:three")]).expect(1);
    assert!(none.stderr.contains("does not have it"), "{}", none.stderr);
    host.assert_clean();
}

#[test]
fn a_guarded_registry_gives_to_who_knows_its_password_and_trusts_its_authority() {
    let (host, registry) = (Host::new(), Registry::guarded());
    registry.push(&format!("oci-archive:{DEMO}"), "demo:1");
    let name = format!("{}/demo:1", registry.host());
    let refused = |why: &str| {
        let run = run(&host, &["pull", &name]).expect(1);
        assert!(run.stderr.contains(why) && !run.stderr.contains(PASSWORD), "{}", run.stderr);
    };
    let certificates = host.scratch("config/docker/certs.d").join(registry.host());
    fs::create_dir_all(&certificates).unwrap();
    let other = Registry::guarded();
    fs::copy(other.authority(), certificates.join("other.crt")).unwrap();
    refused("cannot reach the registry");
    fs::copy(registry.authority(), certificates.join("ca.crt")).unwrap();
    refused("no credentials");
    let wrong = log_in(&host, &registry, "wrong").expect(1);
    assert!(wrong.stderr.contains("does not take") && !wrong.stderr.contains("wrong"), "{}", wrong.stderr);
    refused("no credentials");
    log_in(&host, &registry, PASSWORD).expect(0);
    run(&host, &["pull", &name]).expect(0);
    let list = host.isopod(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).expect(0);
    assert_eq!(list.text(), format!("{name}\n"));
    run(&host, &["logout", registry.host()]).expect(0);
    refused("no credentials");
    host.assert_clean();
}

#[test]
fn of_an_image_that_changed_in_one_layer_that_layer_is_fetched() {
    let (host, registry) = (Host::new(), Registry::open());
    let layer = |text: &str| Layer::gzip(&Tar::of(vec![file(text, text.repeat(9000))]));
    let push = |top: &str| {
        let layers = vec![layer("base"), layer("middle"), layer(top)];
        let layout = Layout::new("x", layers).write(&host.scratch(top));
        registry.push(&format!("oci:{}:x", layout.display()), "a:latest");
    };
    let name = format!("{}/a", registry.host());
    let fetched = |what: &str| {
        let before = registry.requests("GET /v2/a/blobs/");
        run(&host, &["pull", &name]).expect(0);
        let requests = registry.requests("GET /v2/a/blobs/") - before;
        assert!(requests > 0, "{what}: the log tells requests");
        requests
    };
    push("top");
    // A configuration goes with each.
    assert_eq!(fetched("all"), 4);
    assert_eq!(fetched("nothing new"), 1);
    push("other");
    assert_eq!(fetched("one layer"), 2);
    host.assert_clean();
}

#[test]
fn a_layer_that_a_repository_beside_has_is_not_sent_again() {
    let (host, registry) = (Host::new(), Registry::open());
    let layers = ["one", "two"].map(|text| Layer::gzip(&Tar::of(vec![file(text, text)])));
    let layout = Layout::new("x", layers.into()).write(&host.scratch("layout"));
    registry.push(&format!("oci:{}:x", layout.display()), "a:1");
    let name = |path: &str| format!("{}/{path}", registry.host());
    run(&host, &["pull", "-q", &name("a:1")]).expect(0);
    run(&host, &["tag", &name("a:1"), &name("b/c:1")]).expect(0);
    run(&host, &["push", "-q", &name("b/c:1")]).expect(0);
    assert_eq!(registry.digest("b/c:1"), registry.digest("a:1"));
    // The configuration is sent; it is no layer.
    assert_eq!(registry.requests("PUT /v2/b/c/blobs/uploads/"), 1);
    assert_eq!(registry.requests("POST /v2/b/c/blobs/uploads/?mount="), 2);
    host.assert_clean();
}

#[test]
fn a_mirror_is_asked_for_what_docker_hub_has() {
    let (host, registry) = (Host::new(), Registry::open());
    registry.push(&format!("oci-archive:{DEMO}"), "library/tool:1");
    let folder = host.scratch("config/docker");
    fs::create_dir_all(&folder).unwrap();
    // Nobody is at the first.
    let mirrors = format!(r#"{{"registry-mirrors": ["http://127.0.0.1:1", "http://{}/"]}}"#, registry.host());
    fs::write(folder.join("daemon.json"), mirrors).unwrap();
    run(&host, &["pull", "-q", "tool:1"]).expect(0);
    let list = run(&host, &["images", "--format", "{{.Repository}}:{{.Tag}}"]).expect(0);
    assert_eq!(list.text(), "tool:1\n");
    fs::write(folder.join("daemon.json"), r#"{"registry-mirrors": ["mirror"]}"#).unwrap();
    let refused = run(&host, &["pull", "tool:1"]).expect(1);
    assert!(
        refused.stderr.contains("the mirror `mirror` is not http[s]://HOST[:PORT]"),
        "{}",
        refused.stderr
    );
    host.assert_clean();
}

#[test]
fn a_registry_on_this_host_is_asked_without_the_proxy_there_is() {
    let (host, registry) = (Host::new(), Registry::open());
    registry.push(&format!("oci-archive:{DEMO}"), "demo:1");
    let mut pull = host.command(&["pull", "-q", &format!("{}/demo:1", registry.host())]);
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        // Nobody is there.
        pull.env(proxy, "http://127.0.0.1:1");
    }
    finish(pull.spawn().unwrap(), Vec::new()).expect(0);
    host.assert_clean();
}

#[test]
fn ten_that_pull_one_image_at_once_fetch_each_layer_once() {
    let (host, registry) = (Host::new(), Registry::open());
    registry.push(&format!("oci-archive:{DEMO}"), "demo:1");
    let name = format!("{}/demo:1", registry.host());
    let pushed = registry.requests("GET /v2/demo/blobs/");
    let pulls: Vec<_> = (0..10).map(|_| host.command(&["pull", "-q", &name]).spawn().unwrap()).collect();
    for pull in pulls {
        assert_eq!(finish(pull, Vec::new()).expect(0).text(), format!("{name}\n"));
    }
    let list = host.isopod(&["images", "-q"]).expect(0);
    assert_eq!(list.text().lines().count(), 1);
    let layers = registry.layers("demo:1");
    assert!(layers.len() > 1);
    for layer in layers {
        assert_eq!(registry.requests(&format!("GET /v2/demo/blobs/{layer}")), 1, "{layer}");
    }
    assert!(registry.requests("GET /v2/demo/blobs/") > pushed);
    host.assert_clean();
}
