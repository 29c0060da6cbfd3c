// SPDX-License-Identifier: Apache-2.0
//! The files in /etc that are the host's to write.

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
