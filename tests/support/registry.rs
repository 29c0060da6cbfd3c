// SPDX-License-Identifier: Apache-2.0
//! A real registry, Debian's `docker-registry`, on a loopback port of its own; gone with what stands for it.

use super::layout::tool;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, copy, sink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use tempfile::TempDir;

pub(crate) const USER: &str = "isopod";
/// No other text has it, so that it can be looked for.
pub(crate) const PASSWORD: &str = "open-sesame-4711";
/// User and password as a request carries them (RFC 7617).
pub(crate) const BASIC: &str = "aXNvcG9kOm9wZW4tc2VzYW1lLTQ3MTE=";
/// As `htpasswd -B` has it.
const HTPASSWD: &str = "isopod:$2b$05$abcdefghijklmnopqrstuud2L8crwTyOxFi9P3yYYIG5bIITxThTG\n";

#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    host: String,
    root: TempDir,
    /// With TLS and a password, or neither.
    guarded: bool,
}

impl Registry {
    /// Everybody may push to it and pull from it, without TLS.
    pub(crate) fn open() -> Self {
        Self::start(false)
    }

    /// It wants a name and a password, and has a certificate of an authority of its own.
    pub(crate) fn guarded() -> Self {
        Self::start(true)
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Its authority's certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.root.path().join("trusted/ca.crt")
    }

    /// Has skopeo push an image that it knows as `from`.
    pub(crate) fn push(&self, from: &str, name: &str) {
        self.push_with(&[], from, name);
    }

    /// The same with more of skopeo's flags.
    pub(crate) fn push_with(&self, flags: &[&str], from: &str, name: &str) {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet"]).args(flags).args([from, &format!("docker://{}/{name}", self.host)]);
        if self.guarded {
            command.arg(format!("--dest-creds={USER}:{PASSWORD}"));
            command.arg(format!("--dest-cert-dir={}", self.root.path().join("trusted").display()));
        } else {
            command.arg("--dest-tls-verify=false");
        }
        tool(&mut command);
    }

    /// The digest that skopeo finds under a name.
    pub(crate) fn digest(&self, name: &str) -> String {
        self.inspect(name, "{{.Digest}}")
    }

    fn inspect(&self, name: &str, what: &str) -> String {
        let mut command = Command::new("skopeo");
        command.args(["inspect", "--format", what, &format!("docker://{}/{name}", self.host)]);
        if self.guarded {
            command.arg(format!("--creds={USER}:{PASSWORD}"));
            command.arg(format!("--cert-dir={}", self.root.path().join("trusted").display()));
        } else {
            command.arg("--tls-verify=false");
        }
        String::from_utf8(tool(&mut command)).expect("text").trim().to_owned()
    }

    /// The digests of an image's layers, as skopeo finds them.
    pub(crate) fn layers(&self, name: &str) -> Vec<String> {
        let said = self.inspect(name, "{{range .Layers}}{{.}} {{end}}");
        said.split_whitespace().map(str::to_owned).collect()
    }

    /// How many requests of the kind its log has, as `GET /v2/x/blobs/`.
    pub(crate) fn requests(&self, what: &str) -> usize {
        let log = fs::read_to_string(self.root.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(what)).count()
    }

    fn start(guarded: bool) -> Self {
        let root = TempDir::with_prefix("isopod-registry-").expect("a folder of our own");
        let at = |name: &str| root.path().join(name).display().to_string();
        let mut more = String::new();
        if guarded {
            certify(root.path());
            fs::write(at("htpasswd"), HTPASSWD).expect("our own");
            let (key, certificate) = (at("own.key"), at("own.pem"));
            more = format!(
                "  tls: {{certificate: {certificate}, key: {key}}}\nauth: {{htpasswd: {{realm: r, path: {}}}}}\n",
                at("htpasswd")
            );
        }
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:0\n{more}",
            at("data")
        );
        fs::write(at("config.yml"), config).expect("our own");
        let log = File::create(at("log")).expect("our own");
        let mut child = Command::new("docker-registry")
            .args(["serve", &at("config.yml")])
            .stdout(log)
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry; `make test` installs it");
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let host = said.by_ref().lines().map_while(Result::ok).find_map(|line| {
            let (_, after) = line.split_once("listening on ")?;
            Some(after.split(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()).next()?.to_owned())
        });
        // It must not wait for a reader.
        thread::spawn(move || copy(&mut said, &mut sink()));
        let host = host.expect("it says where it listens");
        Self { child, host, root, guarded }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority, and a certificate of its for 127.0.0.1.
fn certify(root: &Path) {
    let openssl = |args: &[&str]| drop(tool(Command::new("openssl").current_dir(root).args(args)));
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    openssl(
        &[
            &["req", "-x509", "-subj", "/CN=authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt"]
                [..],
            &key,
        ]
        .concat(),
    );
    openssl(&[&["req", "-subj", "/CN=registry", "-keyout", "own.key", "-out", "own.csr"][..], &key].concat());
    // A folder that skopeo is to trust must not have keys in it.
    fs::create_dir(root.join("trusted")).expect("our own");
    fs::copy(root.join("ca.crt"), root.join("trusted/ca.crt")).expect("our own");
    fs::write(root.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("our own");
    openssl(&[
        "x509",
        "-req",
        "-in",
        "own.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "names",
        "-out",
        "own.pem",
    ]);
}
