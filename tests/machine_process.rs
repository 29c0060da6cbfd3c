// SPDX-License-Identifier: Apache-2.0
//! The machine's process as the host sees it: what it was told, what it holds, what it shares. The letters are the rows of
//! `docs/attacks.md`.

use crate::support::attacker::{self, Orders, Part};
use crate::support::registry::{BASIC, PASSWORD, Registry, USER};
use crate::support::{Host, beneath, files, finish};
use std::fs::{self, File, read_to_string};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// The demo image as `make` makes it.
const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/rootfs/demo.tar");

/// A container that answers a line with a line, once it has done so.
struct Running {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Running {
    fn begin(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().expect("the binary starts");
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self { child, said };
        running.ask();
        running
    }

    fn ask(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap(), "hello").unwrap();
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line, "hello\n", "{:?}", self.child.stderr.take().map(io::read_to_string));
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        self.child.stdout = Some(self.said.into_inner());
        finish(self.child, Vec::new()).expect(0);
    }
}

/// What each descriptor is, without what differs from one to the next, and its flags.
fn descriptors(pid: u32) -> Vec<(String, u32)> {
    let about = |path: &Path| {
        let to = fs::read_link(path).ok()?.to_string_lossy().into_owned();
        let number = path.file_name()?.to_string_lossy().into_owned();
        let info = read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim().to_owned();
        Some((to, u32::from_str_radix(&flags, 8).ok()?))
    };
    files(format!("/proc/{pid}/fd").as_ref()).iter().filter_map(|path| about(path)).collect()
}

/// A22 (CVE-2019-14835), B3 (CVE-2026-44210), B8, F2 (CVE-2024-21626), H15: no word of the user's is in its arguments or its
/// environment; it holds one virtual machine, files it can only read, and nothing that leads to another part of the host.
#[test]
fn a_machines_process_holds_what_it_needs_and_can_only_read_what_it_shares() {
    let host = Host::new();
    let args = [
        "run",
        "--rm",
        "-i",
        "-u",
        "0",
        "--label=--kernel=/etc/shadow",
        "--label=a b=--\nc",
        "-e",
        "X=--help\n--fd=3",
        "--hostname",
        "h",
        "--entrypoint",
        "",
        "demo",
        "sh",
        "-c",
        "while read line; do find / -xdev -type f -exec head -c 1 {} + >/dev/null 2>&1; echo $line; done",
        "--",
        "--rm",
    ];
    let mut running = Running::begin(&mut host.command(&args));
    let pid = host.machine_pid();
    assert_eq!(read_to_string(format!("/proc/{pid}/cmdline")).unwrap(), "isopod-vmm\0");
    assert_eq!(read_to_string(format!("/proc/{pid}/environ")).unwrap(), "");

    let held = descriptors(pid);
    let count = |what: &str| held.iter().filter(|(to, _)| to.contains(what)).count();
    assert_eq!((count("anon_inode:kvm-vm"), count("/dev/kvm")), (1, 1), "{held:?}");
    let known = ["anon_inode:", "socket:", "pipe:", "/dev/kvm", "/dev/null", "/memfd:"];
    let shared = |to: &str| !known.iter().any(|known| to.starts_with(known));
    for (to, flags) in held.iter().filter(|(to, _)| shared(to)) {
        // O_ACCMODE is 0 and it is no folder: contents can be read, and nothing else done from there.
        assert_eq!((flags & 3, flags & 0o200_000), (0, 0), "{to} has the flags {flags:o}");
        assert!(!to.starts_with("/dev/") && !to.starts_with("/proc/") && !to.starts_with("/sys/"), "{to}");
    }
    assert!(held.iter().any(|(to, _)| shared(to)), "its files: {held:?}");
    running.ask();
    assert_eq!(descriptors(pid).len(), held.len(), "a descriptor for a file that the guest opened");

    // No page of its is looked at for equal ones of others.
    assert_eq!(
        read_to_string(format!("/proc/{pid}/ksm_merging_pages")).map_or("0".into(), |n| n.trim().to_owned()),
        "0"
    );
    let maps = read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let flags: Vec<_> = maps.lines().filter(|line| line.starts_with("VmFlags:")).collect();
    assert!(flags.len() > 20 && !flags.iter().any(|line| line.contains(" mg")), "{flags:?}");
    running.end();
    host.assert_clean();
}

/// Bytes of all files beneath a folder.
fn taken(folder: &Path) -> u64 {
    let of = |path: &PathBuf| match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => taken(path),
        Ok(about) => about.blocks() * 512,
        Err(_) => 0,
    };
    files(folder).iter().map(of).sum()
}

/// H4, H6: a container that writes until nothing more goes. It fills its own memory, goes on, and is told so; on the host no
/// file is larger, and the machine's process has no more than it was promised and the little that it needs.
#[test]
fn a_container_that_fills_its_disk_fills_no_disk_of_the_hosts() {
    // Little, for each page takes milliseconds where KVM emulates.
    const PROMISED: u64 = 32 << 10;
    const OWN: u64 = 64 << 10;
    let host = Host::new();
    host.isopod(&["images", "-q"]).expect(0);
    let before = taken(&host.data_root());
    let script = "dd if=/dev/zero of=/big bs=64k count=1600 2>&1 | grep -q 'No space left' || exit 1
                  truncate -s 1099511627776 /sparse; echo x 2>/dev/null >>/sparse
                  while read line; do echo $line; done";
    let args = ["run", "--rm", "-i", "-u", "0", "-m", "32m", "--entrypoint", "", "demo", "sh", "-c", script];
    let running = Running::begin(&mut host.command(&args));
    let status = read_to_string(format!("/proc/{}/status", host.machine_pid())).unwrap();
    let mark = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let most: u64 = mark.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(most < PROMISED + OWN, "{most} KiB were resident");
    let more = taken(&host.data_root()).saturating_sub(before);
    // The demo image, which the first run takes in, is some 4 MiB; what the container wants to write is 100.
    assert!(more < 8 << 20, "the store has {more} bytes more");
    running.end();
    host.assert_clean();
}

/// Whether any memory of a process has these bytes.
fn has_in_memory(pid: u32, what: &[u8]) -> bool {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut piece = vec![0; (1 << 20) + what.len()];
    for line in maps
        .lines()
        .filter(|line| line.contains(" r") && !line.contains("[vvar") && !line.contains("[vsyscall"))
    {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut at = start;
        while at < end {
            let len = piece.len().min(usize::try_from(end - at).unwrap());
            let read = memory.read_at(&mut piece[..len], at).unwrap_or(0);
            if piece[..read].windows(what.len()).any(|window| window == what) {
                return true;
            }
            at += 1 << 20;
        }
    }
    false
}

/// H13 (CVE-2025-40300): who gets the machine's process to say what it knows hears of no registry's password.
#[test]
fn a_password_that_fetched_an_image_is_nowhere_in_the_machine_that_runs_it() {
    let (host, registry) = (Host::new(), Registry::guarded());
    registry.push(&format!("oci-archive:{DEMO}"), "demo:1");
    let certificates = host.scratch("config/docker/certs.d").join(registry.host());
    fs::create_dir_all(&certificates).unwrap();
    fs::copy(registry.authority(), certificates.join("ca.crt")).unwrap();
    let at_home = |args: &[&str]| {
        let mut command = host.command(args);
        command.env("DOCKER_CONFIG", host.scratch("docker")).env("XDG_CONFIG_HOME", host.scratch("config"));
        command
    };
    let mut log_in = at_home(&["login", "-u", USER, "--password-stdin", registry.host()]);
    let log_in = log_in.stdin(Stdio::piped()).spawn().unwrap();
    finish(log_in, format!("{PASSWORD}\n").into_bytes()).expect(0);
    let name = format!("{}/demo:1", registry.host());
    let args =
        ["run", "--rm", "-i", "-m", "128m", "-e", "SEEN=in-the-guest-4711", "--entrypoint", "", &name, "cat"];
    let running = Running::begin(at_home(&args).env("SECRET", "canary-of-the-environment"));
    let machine = host.machine_pid();
    assert!(has_in_memory(machine, b"in-the-guest-4711"), "what is there is found");
    for secret in [PASSWORD, BASIC, "canary-of-the-environment"] {
        assert!(!has_in_memory(machine, secret.as_bytes()), "`{secret}` is in the machine's process");
    }
    running.end();
    host.assert_clean();
}

/// What puts a name into a folder, with the name.
const MAKING: &str = "trace=bind,creat,open,openat,openat2,mkdir,mkdirat,mknod,mknodat,link,linkat,symlink,symlinkat,rename,\
    renameat,renameat2";

/// A24 (CVE-2026-1386): who finds a link where a file was to be made makes one elsewhere, with rights that are not the link's
/// owner's. So names are made in folders that are their user's alone, whatever the umask is, and in the kernel's.
#[test]
fn a_run_makes_files_only_where_nobody_else_can_plant_a_link() {
    let host = Host::without_templates();
    let trace = host.scratch("trace");
    let (plain, _) = attacker::command(&host, &Orders::agent(Part::Honest), &[]);
    let script = "umask 0; exec strace -f -s 4096 -e \"$0\" -o \"$@\"";
    let args = ["-c", script, MAKING, trace.to_str().unwrap()];
    finish(beneath("sh", &args, &plain).spawn().unwrap(), Vec::new()).expect(7);
    let own = [host.data_root(), host.scratch("run")].map(|folder| folder.to_str().unwrap().to_owned());
    let console = host.scratch("console");
    let may = |path: &&str| {
        own.iter().any(|own| path.starts_with(own))
            || ["/sys/fs/cgroup/", "/proc/self/"].iter().any(|kernels| path.starts_with(kernels))
            // That one the user named.
            || Path::new(path) == console
    };
    let trace = read_to_string(trace).unwrap();
    let (mut made, mut elsewhere) = (0, Vec::new());
    for line in trace.lines().filter(|line| makes(line)) {
        // The text of a link may be anything.
        let texts = usize::from(line.contains(" symlink"));
        let names: Vec<&str> = line.split('"').skip(1).step_by(2).skip(texts).collect();
        made += names.len();
        if !names.iter().all(may) {
            elsewhere.push(line);
        }
    }
    assert!(made > 30, "the trace shows what is made: {made}");
    assert_eq!(elsewhere, Vec::<&str>::new());
    for folder in own {
        let mode = fs::metadata(&folder).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{folder} is {mode:o}");
    }
}

/// Whether a line of strace's is of a call that could have made something.
fn makes(line: &str) -> bool {
    let call = line.split_whitespace().nth(1).unwrap_or_default();
    let opens = call.starts_with("open");
    if opens { line.contains("O_CREAT") || line.contains("O_TMPFILE") } else { line.contains('"') }
}
