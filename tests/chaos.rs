// SPDX-License-Identifier: Apache-2.0
//! Pulls through a network and a registry that do everything wrong: each succeeds or fails with a clear error in good time,
//! no wrong byte is stored, and no secret is shown to anybody else.
//!
//! A thousand pulls (`ISOPOD_TEST_TIMES=1000`) take some minutes and meet registries that fall silent, too.

use crate::support::chaos::{Chaos, Fate, Seen};
use crate::support::layout::{Layer, Layout};
use crate::support::nasty::{Tar, file, folder};
use crate::support::registry::{BASIC, PASSWORD, Registry};
use crate::support::store::{Right, expect_nothing_else, noise};
use crate::support::{Host, MEMORY_KIB, Run, tell, times, watched};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const IMAGES: u64 = 6;
const AT_ONCE: usize = 6;
/// A pull of a few hundred kilobytes is over by then, one way or the other.
const DEADLINE: Duration = Duration::from_secs(240);
/// Of 10,000 requests, in a long run.
const STALLS: u64 = 30;

/// Three layers, from a file's few bytes to several buffers' worth.
fn image(n: u64, host: &Host) -> String {
    let name = |what: &str| format!("{what} {n}");
    let layers = [
        Tar::of([folder("etc"), file("etc/name", name("image"))]),
        Tar::of([file("some", noise(&name("some"), 20 << 10))]),
        Tar::of([file("more", noise(&name("more"), 300 << 10)), file("less", name("less"))]),
    ];
    let layers = layers.iter().map(|tar| Layer::gzip(tar)).collect();
    let layout = Layout::new("x:1", layers).write(&host.scratch(&name("layout").replace(' ', "-")));
    format!("oci:{}:x:1", layout.display())
}

/// What all pulls are held against.
struct Truth {
    right: Right,
    digests: Vec<String>,
    registry: Registry,
}

impl Truth {
    fn new() -> Self {
        let (host, registry) = (Host::without_templates(), Registry::open());
        for n in 0..IMAGES {
            registry.push(&image(n, &host), &format!("image{n}:1"));
            host.isopod(&["pull", "-q", &format!("{}/image{n}:1", registry.host())]).expect(0);
        }
        let mut right = Right::default();
        right.learn(&host.data_root().join("image"));
        let digests = (0..IMAGES).map(|n| registry.digest(&format!("image{n}:1"))).collect();
        Self { right, digests, registry }
    }
}

/// What came of all pulls.
#[derive(Debug, Default)]
struct Sum {
    succeeded: usize,
    failed: BTreeMap<String, usize>,
    requests: usize,
    fates: BTreeMap<Fate, usize>,
    slowest: Duration,
    peak: u64,
}

impl Sum {
    fn add(&mut self, run: &Run, (took, peak): (Duration, u64), seen: &Seen) {
        match run.code {
            Some(0) => self.succeeded += 1,
            _ => *self.failed.entry(reason(&run.stderr)).or_insert(0) += 1,
        }
        self.requests += seen.requests;
        for (fate, n) in &seen.fates {
            *self.fates.entry(*fate).or_insert(0) += n;
        }
        self.slowest = self.slowest.max(took);
        self.peak = self.peak.max(peak);
    }
}

/// The last cause, without what differs from pull to pull.
fn reason(stderr: &str) -> String {
    let mut causes = stderr.lines().filter_map(|line| line.trim().strip_prefix("cause: "));
    let words = causes.next_back().unwrap_or(stderr).split(' ');
    words.filter(|word| !word.bytes().any(|b| b.is_ascii_digit())).collect::<Vec<_>>().join(" ")
}

/// One pull into a store of its own.
fn pull(truth: &Truth, n: u64, stalls: u64, sum: &Mutex<Sum>) {
    let image = n % IMAGES;
    let chaos = Chaos::before(truth.registry.host(), n, n.is_multiple_of(2), stalls);
    let host = Host::without_templates();
    let docker = json!({"auths": {chaos.host(): {"auth": BASIC}}}).to_string();
    fs::create_dir(host.scratch("docker")).unwrap();
    fs::write(host.scratch("docker/config.json"), docker).unwrap();
    let name = format!("{}/image{image}:1", chaos.host());
    let mut command = host.command(&["pull", "-q", &name]);
    command.env("DOCKER_CONFIG", host.scratch("docker")).env("XDG_CONFIG_HOME", host.scratch("config"));
    let began = Instant::now();
    let (run, peak) = watched(&command);
    let took = began.elapsed();

    let case = format!("pull {n}: {}", run.stderr);
    let store = host.data_root().join("image");
    let now = truth.right.check(&store, &case);
    match run.code {
        Some(0) => assert_eq!(now, [(name, truth.digests[image as usize].clone())].into(), "{case}"),
        _ => {
            assert_eq!((run.code, now.len()), (Some(1), 0), "{case}");
            assert!(run.stderr.starts_with("error: cannot pull 127.0.0.1:"), "{case}");
            assert!(run.stderr.contains("\n  cause: ") && !run.stderr.contains("panicked"), "{case}");
        }
    }
    expect_nothing_else(&store, &case);
    for secret in [PASSWORD, BASIC, &format!("token{n}")] {
        assert!(!run.stderr.contains(secret), "{case}");
    }
    assert!(took < DEADLINE, "{case}: {took:?}");
    assert!(peak < MEMORY_KIB, "{case}: {peak} KiB of memory");
    chaos.with_seen(|seen| {
        assert_eq!(seen.leaks, Vec::<String>::new(), "{case}");
        sum.lock().unwrap().add(&run, (took, peak), seen);
    });
}

#[test]
fn pulls_through_chaos_end_in_time_store_no_wrong_byte_and_tell_no_secret() {
    let (truth, sum, next, many) = (Truth::new(), Mutex::default(), AtomicU64::new(0), times(30));
    // Silence is waited for, and that takes long.
    let stalls = if many > 30 { STALLS } else { 0 };
    thread::scope(|scope| {
        let pulls = || {
            while let Some(n) = Some(next.fetch_add(1, Ordering::SeqCst)).filter(|n| *n < many) {
                pull(&truth, n, stalls, &sum);
            }
        };
        for _ in 0..AT_ONCE {
            scope.spawn(pulls);
        }
    });
    let sum = sum.into_inner().unwrap();
    tell(&format!("{sum:#?}"));
    let failed: usize = sum.failed.values().sum();
    assert_eq!(sum.succeeded + failed, usize::try_from(many).unwrap());
    assert!(sum.succeeded > failed, "most come through: {sum:#?}");
    assert!(sum.fates.len() >= 8, "they met with almost everything: {sum:#?}");
}
