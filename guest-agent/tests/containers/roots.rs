// SPDX-License-Identifier: Apache-2.0
//! What a container sees of files.

use crate::host::{able, image, run, shell, start_in};
use isopod_protocol::message::{Container, EtcFile, Tmpfs};
use std::fs::{create_dir, remove_dir, remove_file, set_permissions, write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

#[test]
fn a_root_can_be_written_and_the_image_stays_as_it_was() {
    if !able() {
        return;
    }
    let image = image();
    let script =
        "echo x >/new && echo y >/etc/passwd && rm /bin/od && mkdir /d && cat /new /etc/passwd && ls /bin/od";
    let ended = start_in(image.path(), shell(script)).wait();
    assert_eq!(ended.stdout(), "x\ny\n");
    assert!(!image.path().join("new").exists() && !image.path().join("proc").exists());
    assert!(image.path().join("bin/od").exists());
}

#[test]
fn a_read_only_root_has_its_tmpfs() {
    if !able() {
        return;
    }
    let tmpfs = vec![Tmpfs { target: "/made/dir".into(), options: "size=1m,mode=1770,exec".into() }];
    let script =
        "touch /x; touch /made/dir/x && echo writable; grep ' /made/dir ' /proc/mounts; touch /dev/shm/x";
    let ended = run(Container { read_only_root: true, tmpfs, ..shell(script) });
    assert!(ended.stderr().contains("Read-only file system"));
    assert!(
        ended
            .stdout()
            .starts_with("writable\ntmpfs /made/dir tmpfs rw,nosuid,nodev,relatime,size=1024k,mode=1770")
    );
}

#[test]
fn a_root_has_the_attributes_of_the_images() {
    if !able() {
        return;
    }
    let image = image();
    chown(image.path(), Some(5), Some(6)).unwrap();
    set_permissions(image.path(), PermissionsExt::from_mode(0o1751)).unwrap();
    let ended = start_in(image.path(), shell("stat -c %a:%u:%g /")).wait();
    assert_eq!(ended.stdout(), "1751:5:6\n");
}

#[test]
fn the_usual_devices_are_there_and_no_others() {
    if !able() {
        return;
    }
    let ended = run(shell(
        "cd /dev; ls; stat -c %n:%a:%t:%T null zero full random urandom tty; readlink fd; readlink ptmx",
    ));
    let nodes = "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n";
    let modes = "null:666:1:3\nzero:666:1:5\nfull:666:1:7\nrandom:666:1:8\nurandom:666:1:9\ntty:666:5:0\n";
    assert_eq!(ended.stdout(), format!("{nodes}{modes}/proc/self/fd\npts/ptmx\n"));
}

#[test]
fn the_kernels_file_systems_are_mounted_as_they_should_be() {
    if !able() {
        return;
    }
    let ended = run(shell("cut -d' ' -f2,3,4 /proc/mounts"));
    let mounts: Vec<String> = ended.stdout().lines().map(str::to_owned).collect();
    let has = |start: &str| {
        assert!(mounts.iter().any(|line| line.starts_with(start)), "no {start} in {mounts:#?}");
    };
    has("/ overlay rw,");
    has("/dev tmpfs rw,nosuid");
    has("/dev/pts devpts rw,nosuid,noexec");
    has("/dev/shm tmpfs rw,nosuid,nodev,noexec");
    has("/dev/mqueue mqueue rw,nosuid,nodev,noexec");
    has("/sys sysfs ro,nosuid,nodev,noexec");
    has("/sys/fs/cgroup cgroup2 ro,nosuid,nodev,noexec");
    has("/proc proc rw,nosuid,nodev,noexec");
    assert_eq!(mounts.len(), 8, "{mounts:#?}");
}

#[test]
fn small_files_lie_over_the_images_and_can_be_written() {
    if !able() {
        return;
    }
    let image = image();
    write(image.path().join("etc/hosts"), "the image's").unwrap();
    symlink("../run/stub/resolv.conf", image.path().join("etc/resolv.conf")).unwrap();
    let file = |path: &str| EtcFile { path: path.into(), content: format!("for {path}\n").into_bytes() };
    let files =
        vec![file("/etc/hosts"), file("/etc/hostname"), file("/etc/resolv.conf"), file("/opt/deep/file")];
    let script = "cat /etc/hosts /etc/hostname /run/stub/resolv.conf /opt/deep/file; echo more >>/etc/hosts && stat -c %a /etc/hosts";
    let ended = start_in(image.path(), Container { files, read_only_root: true, ..shell(script) }).wait();
    let expected = "for /etc/hosts\nfor /etc/hostname\nfor /etc/resolv.conf\nfor /opt/deep/file\n644\n";
    assert_eq!((ended.stdout().as_str(), ended.stderr().as_str()), (expected, ""));
    assert!(!image.path().join("run").exists());
}

/// Makes `path` of the image something else than a folder.
fn spoil(image: &Path, path: &str, how: &str) {
    let full = image.join(path);
    let _ = remove_dir(&full);
    let _ = remove_file(&full);
    match how {
        "absolute link" => symlink("/tmp", full).unwrap(),
        "link out" => symlink("../../../../../../../../tmp", full).unwrap(),
        "link to itself" => symlink(full.file_name().unwrap(), &full).unwrap(),
        "link to the agent" => symlink("/proc/self/cwd/..", full).unwrap(),
        _ => write(full, "a file").unwrap(),
    }
}

#[test]
fn a_mount_point_that_is_no_folder_leads_nowhere_outside() {
    if !able() {
        return;
    }
    let canary = tempfile::tempdir().unwrap();
    for path in ["dev", "proc", "sys", "etc", "tmp"] {
        for how in ["absolute link", "link out", "link to itself", "link to the agent", "file"] {
            let image = image();
            if path == "etc" {
                for file in ["passwd", "group"] {
                    remove_file(image.path().join("etc").join(file)).unwrap();
                }
            }
            spoil(image.path(), path, how);
            let files = vec![EtcFile { path: "/etc/hosts".into(), content: b"hosts".to_vec() }];
            let tmpfs = vec![Tmpfs { target: "/tmp".into(), options: String::new() }];
            let masked_paths = vec!["/proc/kcore".into(), "/sys/firmware".into()];
            let container =
                Container { files, tmpfs, masked_paths, ..shell("ls /agent /image /rw /source; ls /") };
            let ended = start_in(image.path(), container).wait();
            // Either it does not start, or it is in its root and nowhere else.
            if ended.failed.is_none() {
                let root = ended.stdout();
                assert!(!root.contains("upper") && !root.contains("source"), "{path} as {how}: {root}");
            }
            assert!(!image.path().join("tmp/hosts").exists());
        }
    }
    assert!(canary.path().read_dir().unwrap().next().is_none());
}

#[test]
fn a_working_directory_never_leads_out() {
    if !able() {
        return;
    }
    for n in 0..20 {
        let cwd = format!("/proc/self/fd/{n}").into_bytes();
        let ended = run(Container { cwd, ..shell("pwd") });
        assert!(ended.failed.is_some(), "{n}: {}", ended.stdout());
    }
    for cwd in ["/proc/self/cwd", "/proc/self/root", "/proc/1/cwd/.."] {
        let ended = run(Container { cwd: cwd.into(), ..shell("ls -d ../upper upper bin") });
        assert!(ended.failed.is_some() || ended.stdout() == "bin\n", "{cwd}: {ended:?}");
    }
}

#[test]
fn masked_paths_are_empty_and_read_only_paths_are_read_only() {
    if !able() {
        return;
    }
    let image = image();
    create_dir(image.path().join("secret")).unwrap();
    write(image.path().join("secret/key"), "x").unwrap();
    write(image.path().join("file"), "y").unwrap();
    let masked_paths =
        ["/secret", "/file", "/proc/interrupts", "/sys/firmware", "/not/there"].map(Into::into).to_vec();
    let read_only_paths = ["/proc/sys", "/etc", "/not/there"].map(Into::into).to_vec();
    let script = "ls -A /secret /sys/firmware; wc -c </file; wc -c </proc/interrupts; touch /secret/x; \
        echo 1 >/proc/sys/kernel/domainname; touch /etc/x; grep ' /proc/sys ' /proc/mounts | cut -d' ' -f4";
    let ended = start_in(image.path(), Container { masked_paths, read_only_paths, ..shell(script) }).wait();
    assert_eq!(ended.stdout(), "/secret:\n\n/sys/firmware:\n0\n0\nro,nosuid,nodev,noexec,relatime\n");
    assert_eq!(ended.stderr().matches("Read-only file system").count(), 3, "{}", ended.stderr());
}

#[test]
fn a_null_device_of_the_images_masks_nothing() {
    if !able() {
        return;
    }
    let image = image();
    create_dir(image.path().join("dev")).unwrap();
    symlink("/etc/passwd", image.path().join("dev/null")).unwrap();
    let masked_paths = vec!["/proc/interrupts".into()];
    let ended = start_in(
        image.path(),
        Container { masked_paths, ..shell("cat /proc/interrupts; stat -c %F /dev/null") },
    );
    assert_eq!(ended.wait().stdout(), "character special file\n");
}
