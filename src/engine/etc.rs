// SPDX-License-Identifier: Apache-2.0
//! The files in /etc that are the host's to write.

use crate::hex::hex;
use isopod_protocol::message::EtcFile;

const RESOLV: &str = "# This container has no network, hence no name servers.\n";

pub(crate) fn files(hostname: &str) -> Vec<EtcFile> {
    let hosts = format!(
        "127.0.0.1\tlocalhost {hostname}\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n"
    );
    [
        ("/etc/hosts", hosts),
        ("/etc/hostname", format!("{hostname}\n")),
        ("/etc/resolv.conf", RESOLV.to_owned()),
    ]
    .map(|(path, content)| EtcFile { path: path.to_owned(), content: content.into_bytes() })
    .into()
}

/// What of them tells one container from another, for a copy that is to be told from its original. A machine id only takes
/// the place of one (machine-id(5)): images as a rule have none.
pub(crate) fn identity(hostname: &str, random: &[u8; 16]) -> Vec<EtcFile> {
    let mut own: Vec<_> =
        files(hostname).into_iter().filter(|file| file.path != "/etc/resolv.conf").collect();
    let id = format!("{}\n", hex(random));
    own.push(EtcFile { path: "/etc/machine-id".to_owned(), content: id.into_bytes() });
    own
}
