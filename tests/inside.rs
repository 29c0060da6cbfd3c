// SPDX-License-Identifier: Apache-2.0
//! What somebody finds who looks around in a container for a way out. The letters are the rows of `docs/attacks.md`.

use crate::support::{Host, debian, files, finish};
use rustix::process::{Pid, Signal, kill_process};
use rustix::system::uname;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// All that isopod would otherwise keep from a container: what is left is between it and the machine's walls.
const ALL: [&str; 6] =
    ["--cap-add", "ALL", "--security-opt", "systempaths=unconfined", "--security-opt", "seccomp=unconfined"];

/// Everything that is text in /proc and /sys, but for what belongs to a process or never ends.
const ALL_TEXT: &str = "find /proc /sys -xdev -type f ! -path '/proc/[0-9]*' ! -path '/proc/self/*' \
                        ! -path '/proc/thread-self/*' ! -name kmsg ! -name kcore ! -name 'kpage*' -size -65 \
                        -exec head -c 65536 {} + 2>/dev/null; cat /proc/1/* 2>/dev/null | head -c 100000; dmesg; uname -a";

/// A23, A25, H14: four devices of virtio, no other hypervisor in it, and nothing of the host's.
#[test]
fn a_machine_has_four_devices_and_nothing_of_its_hosts() {
    let host = Host::new();
    let script = format!(
        "for bus in platform virtio; do echo $bus: $(ls /sys/bus/$bus/devices); done; echo buses: $(ls /sys/bus)
         echo ports: $(sed 's/.* : //' /proc/ioports | sort -u)
         echo nodes: $(ls -d /sys/class/block /sys/class/dmi /sys/class/tpm /sys/firmware/* /proc/partitions 2>/dev/null)
         for n in '10 232' '10 238' '10 241' '1 1' '1 2' '1 4' '8 0' '254 0'; do for kind in c b; do
           mknod /node $kind $n; (: </node) 2>/dev/null && echo there is $kind $n; rm /node; done; done
         echo processor: $(grep -o -w -E 'vmx|svm' /proc/cpuinfo) $(ls /dev/kvm 2>/dev/null); echo text; {ALL_TEXT}"
    );
    let run = host.sh(&ALL, &script).expect(0);
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    let (lists, text) = said.split_once("\ntext\n").expect("both parts");
    let expected = [
        "platform: pvpanic-mmio virtio-mmio.0 virtio-mmio.1 virtio-mmio.2 virtio-mmio.3",
        "virtio: virtio0 virtio1 virtio2 virtio3",
        "buses: clockevents clocksource container cpu event_source platform serial-base virtio workqueue",
        "ports: dma page reg dma1 dma2 fpu keyboard pic1 pic2 pvpanic-mmio timer0 timer1",
        "nodes:",
        "processor:",
    ];
    assert_eq!(lists.lines().collect::<Vec<_>>(), expected);
    assert!(text.len() > 20_000 && text.contains("Linux version"), "too little to look at: {}", text.len());
    for secret in secrets(&host) {
        assert!(!text.contains(&secret), "the guest reads `{secret}`");
    }
}

/// What tells one host from another.
fn secrets(host: &Host) -> Vec<String> {
    let name = uname();
    let plain = |text: &CStr| text.to_string_lossy().into_owned();
    let mut all = vec![plain(name.release()), plain(name.nodename()), plain(name.version())];
    let addresses = files("/sys/class/net".as_ref()).into_iter().map(|net| net.join("address"));
    let ids = ["/etc/machine-id", "/proc/sys/kernel/random/boot_id", "/sys/class/dmi/id/product_uuid"];
    let known = addresses.chain(ids.map(PathBuf::from)).filter_map(|file| fs::read_to_string(file).ok());
    all.extend(known.map(|text| text.trim().to_owned()).filter(|text| !text.starts_with("00:00:00")));
    all.push(host.root().display().to_string());
    all.retain(|text| text.len() > 3);
    assert!(all.len() >= 3, "{all:?}");
    all
}

/// What guest root does to the files it shares with others.
const HARM: &str = "
    mkdir /m /b; mount -t virtiofs image /m; mount -t virtiofs boot /b; mount -o remount,rw /m; mount -o remount,rw /b
    mount -o remount,rw,bind / 2>/dev/null
    for f in /m/bin/busybox /b/agent /proc/1/exe; do
        (echo x >>$f) 2>/dev/null && echo wrote $f
        (: >$f) 2>/dev/null && echo emptied $f
        dd if=/dev/zero of=$f bs=4096 count=1 conv=notrunc 2>/dev/null && echo overwrote $f
        chmod 777 $f 2>/dev/null && echo chmod $f; touch $f 2>/dev/null && echo touched $f
        rm -f $f 2>/dev/null && echo removed $f; ln $f /m/link 2>/dev/null && echo linked $f
        mv $f /m/moved 2>/dev/null && echo moved $f; truncate -s 1 $f 2>/dev/null && echo cut $f; done
    mkdir /m/d 2>/dev/null && echo made; mknod /m/n c 1 3 2>/dev/null && echo made; ln -s x /m/l 2>/dev/null && echo made
    umount -l /b; sha256sum </m/bin/busybox; sha256sum </proc/1/exe
    cp /bin/busybox /bin/new; echo x >>/bin/new; mv /bin/new /bin/busybox; tail -c 2 /bin/busybox; sha256sum </m/bin/busybox";

/// B9 (CVE-2026-46695), B10 (CVE-2026-24834), F1 (CVE-2019-5736), F9 (CVE-2026-31431): what one container does to the files
/// of its image, and to the program that started it, no other sees, nor does the host.
#[test]
fn guest_root_changes_nothing_that_another_machine_or_the_host_reads() {
    let host = Host::new();
    host.isopod(&["images", "-q"]).expect(0);
    let sum = "sha256sum </bin/busybox";
    let before = (host.sh(&[], sum).expect(0).text().to_owned(), store(&host));
    let flags = [&ALL[..], &["--init"]].concat();
    let run = host.sh(&flags, HARM).expect(0);
    let lines: Vec<&str> = run.text().lines().collect();
    // Nothing worked but on its own layer, where the program has one more line at its end now.
    assert_eq!(lines.len(), 4, "{}\n{}", run.text(), run.stderr);
    assert_eq!((lines[0], lines[2], lines[3]), (before.0.trim(), "x", before.0.trim()));
    let agent = lines[1].to_owned();
    let after = host.sh(&flags, &format!("{sum}; sha256sum </proc/1/exe")).expect(0);
    assert_eq!(after.text(), format!("{}{agent}\n", before.0));
    assert_eq!(store(&host), before.1);
    host.isopod(&["system", "verify"]).expect(0);
    host.assert_clean();
}

/// Every file of the store, with its digest.
fn store(host: &Host) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![host.data_root().join("image")];
    while let Some(folder) = folders.pop() {
        for path in files(&folder) {
            match fs::symlink_metadata(&path).unwrap() {
                about if about.is_dir() => folders.push(path),
                about if about.is_file() => {
                    found.insert(path.clone(), Sha256::digest(fs::read(path).unwrap()).to_vec());
                }
                _ => {}
            }
        }
    }
    assert!(found.len() > 3, "{found:?}");
    found
}

/// Calls and what they are asked, as root with Docker's defaults; each says its errno, or that it went well.
const CALLS: &str = r#"
    my @calls = ([165,"a","b","tmpfs",0,0], [166,"/",0], [155,".","."], [272,0x10000000], [272,0x20000], [308,0,0],
      [321,0,0,0], [250,0,-3,1], [248,"user","a","b",1,-3], [249,"user","a",0,-3], [298,0,0,-1,-1,0], [323,0],
      [304,-1,0,0], [425,1,0], [103,3,0,0], [246,0,0,0,0], [320,0,0,0,"",0], [313,0,"",0], [175,0,0,0], [176,"x",0],
      [167,"x",0], [169,0,0,0,0], [170,"x",1], [171,"x",1], [164,0,0], [227,0,0], [172,3], [173,0,1,1], [163,0], [179,0,0,0,0],
      [430,"tmpfs",0], [428,-100,"/",1], [429,-1,"",-1,"",0], [442,-1,0,0,0,0], [312,1,1,0,0,0], [41,38,5,0], [41,40,1,0],
      [41,17,3,0], [435,0,0], [212,0,0,0]);
    for (@calls) { my ($n, @a) = @$_; $! = 0; print "$n ", syscall($n, @a) < 0 ? $! + 0 : "went well", "\n"; }"#;

/// F10: the probes of am-i-isolated, and some more. Permission denied, no such call, or no such family of sockets.
#[test]
fn the_probes_of_an_attacker_find_docker_s_walls_and_a_kernel_without_more() {
    let host = Host::new();
    let layout = debian::layout();
    host.isopod(&["load", "-q", "-i", layout.to_str().unwrap()]).expect(0);
    let script = format!(
        "perl -e '{CALLS}'; echo files; for f in /dev/mem /dev/kmem /dev/port /dev/kmsg /proc/kcore /proc/kallsyms \
         /sys/kernel/debug/tracing /sys/kernel/security /sys/fs/bpf /proc/config.gz /dev/kvm /dev/vsock /dev/fuse; do \
           test -e $f && echo $f $(head -c 100 $f 2>/dev/null | tr -d '0 \\n' | wc -c); done; \
         ls /proc/self/fd | tr '\\n' ' '; cat /proc/sys/kernel/modules_disabled /proc/modules 2>/dev/null; true"
    );
    let run = host.run(&["-u", "0", debian::NAME, "sh", "-c", &script], Vec::new()).expect(0);
    let (calls, others) = run.text().split_once("files\n").expect("both parts");
    assert_eq!(calls.lines().count(), 40, "{calls}{}", run.stderr);
    let open: Vec<_> =
        calls.lines().filter(|line| !["1", "38", "97"].contains(&line.split_once(' ').unwrap().1)).collect();
    assert_eq!(open, [""; 0], "these calls are not refused");
    // Of the files that tell of the kernel none is there, or it is empty; no descriptor but the three, and that of the list.
    let kernel: Vec<_> =
        others.lines().filter(|line| line.starts_with('/') && !line.ends_with(" 0")).collect();
    assert_eq!(kernel, Vec::<&str>::new());
    assert!(others.trim_end().ends_with("0 1 2 3"), "{others}");
    host.assert_clean();
}

/// Connects to whoever may listen: the host at the agent's port and others, itself, the loopback.
const CONNECT: &str = r#"
import os, socket
for cid, port in [(2, 1024), (2, 22), (2, 1), (2, 0xffffffff), (3, 1024), (3, 22), (1, 1024), (0, 1024), (0xffffffff, 1024)]:
    s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    s.settimeout(5)
    try:
        s.connect((cid, port)); print("connected", cid, port)
    except OSError:
        pass
s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
try:
    s.bind((0xffffffff, 1023)); print("bound")
except OSError:
    pass
for path in ["/agent", "/image", "/proc/2", "/run/isopod", "/dev/vsock"]:
    if os.path.exists(path):
        print("there is", path)
print(open("/proc/net/unix").read().count("@"), [p for p in os.listdir("/proc") if p.isdigit()], os.getuid())
"#;

/// F6 (CVE-2026-53657): a user of the guest talks to the agent, or in its place, and is root.
#[test]
fn a_user_in_the_guest_reaches_neither_the_agent_nor_the_host() {
    let host = Host::new();
    let layout = debian::layout();
    host.isopod(&["load", "-q", "-i", layout.to_str().unwrap()]).expect(0);
    let flags = ["-u", "1000", "--security-opt", "seccomp=unconfined"];
    let args = [&flags[..], &[debian::NAME, "python3", "-c", CONNECT]].concat();
    let run = host.run(&args, Vec::new()).expect(0);
    assert_eq!(run.text(), "0 ['1'] 1000\n", "{}", run.stderr);
    host.assert_clean();
}

/// H3: processes without end. Beside it the host has no process and the machine no thread more than before.
#[test]
fn a_fork_bomb_stays_in_its_machine() {
    let host = Host::new();
    let script = "echo up; bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done";
    let args =
        ["run", "--rm", "--name", "bomb", "-m", "128m", "--entrypoint", "", "demo", "sh", "-c", script];
    let mut run = host.command(&args).spawn().unwrap();
    let mut said = BufReader::new(run.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    let machine = host.machine_pid();
    let threads = || files(format!("/proc/{machine}/task").as_ref()).len();
    let (before, were) = (threads(), host.processes().len());
    thread::sleep(Duration::from_secs(4));
    assert!(threads() <= before, "the machine's process has {} threads, and had {before}", threads());
    assert_eq!(host.processes().len(), were, "{:?}", host.processes());
    let asked = Instant::now();
    assert_eq!(host.isopod(&["ps", "--format", "{{.Names}}"]).expect(0).text(), "bomb\n");
    assert!(asked.elapsed() < Duration::from_secs(2), "ps took {:?}", asked.elapsed());
    let asked = Instant::now();
    for _ in 0..3 {
        kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    run.stdout = Some(said.into_inner());
    let end = finish(run, Vec::new());
    assert!(asked.elapsed() < Duration::from_secs(2), "the end took {:?}: {}", asked.elapsed(), end.stderr);
    host.assert_clean();
}
