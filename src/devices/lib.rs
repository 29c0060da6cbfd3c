// SPDX-License-Identifier: Apache-2.0
//! Virtual hardware, and nothing of KVM: a device is registers, queues in guest memory and eventfds, so that every one
//! of them runs, is tested and is fuzzed without a virtual machine.
//!
//! ```text
//!   vmm: exits ────────► transport (registers, status) ──start/stop──► device ──► worker thread (queues)
//!        ioeventfd ─────────────────────────── kick ────────────────────────────────────▲   │
//!        irqfd ◄──────────────────────────── interrupt ─────────────────────────────────────┘
//! ```
//!
//! All devices there are: `virtio::fs` (26), `virtio::vsock` (19), `virtio::rng` (4), and `serial` for debugging.
//!
//! Whatever a guest writes is an allegation. Registers are checked by the transport when they are written, descriptor
//! chains by `virtio::chain` when they are popped; a device sees only what was checked, and a worker that meets a
//! broken ring asks for a reset and sleeps until it gets one.
#![forbid(unsafe_code)]

pub mod serial;
pub mod virtio;

pub use virtio::{GuestMemory, MmioTransport, VirtioDevice, fs, rng, vsock};
