// SPDX-License-Identifier: Apache-2.0
//! Containers, by the agent as it is, over its protocol, in namespaces of this host instead of in a machine.
//!
//! They need root, `unshare` and a static busybox; without them each test passes, having seen nothing.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "what the tests stand on is test code, too")]

mod confinement;
mod host;
mod processes;
mod roots;
mod streams;
