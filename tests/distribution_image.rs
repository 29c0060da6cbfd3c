// SPDX-License-Identifier: Apache-2.0
//! A real distribution's image, made by other people's tools, runs as its author said.

use crate::support::{Host, debian};

const TELL: &str = "import os,sys; print(os.getuid(), os.getgid(), sorted(os.getgroups()), os.getcwd(), \
    os.environ['TALE'], os.cpu_count(), sys.version_info[0], open('one').read().strip())";

#[test]
fn debian_runs_python_as_its_user_with_its_environment_in_its_folder_on_one_and_on_two_cpus() {
    let host = Host::new();
    let layout = debian::layout();
    let loaded = host.isopod(&["load", "-i", layout.to_str().unwrap()]).expect(0);
    assert_eq!(loaded.text(), "Loaded image: debian:latest\n");
    for cpus in ["1", "2"] {
        let run = host.run(&["--cpus", cpus, debian::NAME, "python3", "-c", TELL], Vec::new()).expect(0);
        let told = format!("4711 4712 [4712, 4713] /srv/tales once upon a time {cpus} 3 once\n");
        assert_eq!(run.text(), told, "{cpus} CPUs");
    }
    host.assert_clean();
}
