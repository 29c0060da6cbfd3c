// SPDX-License-Identifier: Apache-2.0
//! The socket device (virtio 1.3 §5.10): the guest agent's one stream to the host.
//!
//! ```text
//!    guest                  this device                                       host
//!    agent ── CID 3:any ──► queues ─► Muxer ─► Bridge{Connection, Credit} ─► unix socket ─► engine
//! ```
//!
//! The guest may open one connection, to one port of the host (CID 2), once; everything else is refused. The host never
//! connects to the guest. `packet` is what is in guest memory, `credit` and `connection` are the rules and pure,
//! `bridge` moves the bytes, `muxer` says who a packet is for, and here is when each of them has its turn.
//!
//! The caller owes that SIGPIPE is ignored, as Rust's start-up has it: the host may close its end at any time.

mod bridge;
mod connection;
mod credit;
mod muxer;
mod packet;
mod state;

mod calls;

use super::chain::{Broken, Chain};
use super::worker::{Engine, EventSet, Handler, Port, Wake};
use super::{Bound, BoundQueue, DeviceState, RestoreError, SaveError, StartError, VirtioDevice};
use bridge::Interest;
use isopod_sys::confined::Closing;
use isopod_sys::seccomp::Rule;
use muxer::{Address, Filled, Muxer};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use virtio_queue::QueueOwnedT;

pub use state::VsockState;

/// What its thread is called.
pub(super) const THREAD: &str = "vsock";
/// §5.10.1
const DEVICE_ID: u32 = 19;
/// Bit 0 (§5.10.3): stream sockets.
const F_STREAM: u64 = 1;

/// The queues (§5.10.2).
const RX: usize = 0;
const TX: usize = 1;
/// Linux fills it with buffers of 4 KiB before anything else, each some 750 instructions of its boot and a page of its
/// memory: 64 hold 240 KB, as much as the agent's windows let come at once.
const RX_SIZE: u16 = 64;
const TX_SIZE: u16 = 256;
/// The event queue is for a migrated guest's new address: nothing is ever put in it.
const EVENT_QUEUE_SIZE: u16 = 16;

/// Packets of a queue that are handled before others have their turn.
const TURN: u16 = TX_SIZE;

#[derive(Debug)]
pub struct Vsock {
    cid: u64,
    engine: Engine<Service>,
}

impl Vsock {
    /// A device whose guest has the address `cid`. The first stream it opens to `port` of the host is `agent`.
    pub fn new(cid: u64, port: u32, agent: UnixStream) -> io::Result<Self> {
        let muxer = Muxer::new(Address { guest: cid, port }, agent)?;
        Ok(Self { cid, engine: Engine::new(Service { muxer, buffer: None, starved: false, watched: None }) })
    }
}

impl VirtioDevice for Vsock {
    fn kind(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_sizes(&self) -> &[u16] {
        &[RX_SIZE, TX_SIZE, EVENT_QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        F_STREAM
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.cid.to_le_bytes();
        let rest = usize::try_from(offset).ok().and_then(|offset| config.get(offset..)).unwrap_or_default();
        for (to, from) in data.iter_mut().zip(rest) {
            *to = *from;
        }
    }

    fn man(&mut self, confined: bool) -> Result<Option<Closing>, StartError> {
        self.engine.man(THREAD, confined)
    }

    fn start(&mut self, bound: Bound) -> Result<(), StartError> {
        self.engine.start(THREAD, bound)
    }

    fn stop(&mut self) -> Vec<BoundQueue> {
        let mut queues = self.engine.stop();
        if let Some(service) = self.engine.idle_mut()
            && service.buffer.take().is_some()
            && let Some(rx) = queues.get_mut(RX)
        {
            // The buffer we kept was the last one popped: it is the driver's again, as if never popped.
            rx.queue.go_to_previous_position();
        }
        queues
    }

    /// The connection stays, and goes on with the next start: there is one in the machine's life.
    fn reset(&mut self) {}

    fn save(&self) -> Result<DeviceState, SaveError> {
        Ok(DeviceState::Vsock(self.engine.idle().ok_or(SaveError::NotIdle)?.muxer.save()?))
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let DeviceState::Vsock(state) = state else {
            return Err(RestoreError::OTHER_DEVICE);
        };
        self.engine.idle_mut().ok_or(RestoreError::NotFresh)?.muxer.restore(state)
    }
}

/// The muxer at work on the queues.
#[derive(Debug)]
pub(super) struct Service {
    muxer: Muxer,
    /// A buffer of the guest's for which there was no packet after all.
    buffer: Option<Chain>,
    /// The guest has posted no buffers, and kicks when it does.
    starved: bool,
    /// What the socket is waited for at present.
    watched: Option<EventSet>,
}

/// The socket's token.
const SOCKET: u32 = 0;

impl Handler for Service {
    const CALLS: &'static [Rule] = calls::CALLS;

    fn begin(&mut self, _port: &mut Port) -> Result<(), Broken> {
        self.muxer.bridge.resume();
        self.watched = None;
        self.starved = false;
        Ok(())
    }

    fn wake(&mut self, wake: Wake, port: &mut Port) -> Result<(), Broken> {
        if let Wake::Ready { events, .. } = wake {
            let gone = events.intersects(EventSet::HANG_UP | EventSet::ERROR);
            self.muxer.bridge.ready(Interest {
                read: gone || events.contains(EventSet::IN),
                write: gone || events.contains(EventSet::OUT),
            });
        }
        self.serve(port)?;
        self.watch(port)
    }
}

impl Service {
    /// Both ways, until there is nothing left to do or the turn is over.
    fn serve(&mut self, port: &mut Port) -> Result<(), Broken> {
        let (mut receive_turn, mut send_turn) = (TURN, TURN);
        loop {
            self.receive(port, &mut receive_turn)?;
            let was_full = !self.muxer.may_receive();
            self.send(port, &mut send_turn)?;
            // Refusals that went out make way for packets that may each need another one.
            if !was_full || !self.muxer.may_receive() {
                break;
            }
        }
        if receive_turn == 0 {
            port.kick_again(TX);
        }
        if send_turn == 0 {
            port.kick_again(RX);
        }
        Ok(())
    }

    /// Takes packets from the guest.
    fn receive(&mut self, port: &mut Port, turn: &mut u16) -> Result<(), Broken> {
        let before = *turn;
        while *turn > 0 && self.muxer.may_receive() {
            let Some(packet) = port.pop(TX)? else { break };
            self.muxer.receive(port.memory(), &packet);
            port.used(TX, packet, 0)?;
            *turn -= 1;
        }
        if *turn < before { port.notify(TX) } else { Ok(()) }
    }

    /// Gives packets to the guest, as long as it has buffers for them.
    fn send(&mut self, port: &mut Port, turn: &mut u16) -> Result<(), Broken> {
        self.starved = false;
        let before = *turn;
        while *turn > 0 && self.muxer.has_packet() {
            let kept = self.buffer.take();
            let Some(buffer) = kept.map_or_else(|| port.pop(RX), |buffer| Ok(Some(buffer)))? else {
                self.starved = true;
                break;
            };
            let written = match self.muxer.fill(port.memory(), &buffer) {
                Filled::Packet(len) => len,
                Filled::TooSmall => 0,
                Filled::Nothing => {
                    self.buffer = Some(buffer);
                    continue;
                }
            };
            port.used(RX, buffer, written)?;
            *turn -= 1;
        }
        if *turn < before { port.notify(RX) } else { Ok(()) }
    }

    /// Waits for the socket for just what can be done with it. When that is nothing the socket is not watched at all:
    /// a hang-up would be told for ever.
    fn watch(&mut self, port: &Port) -> Result<(), Broken> {
        let Interest { read, write } = self.muxer.bridge.interest(!self.starved);
        let mut events = EventSet::empty();
        events.set(EventSet::IN, read);
        events.set(EventSet::OUT, write);
        let wanted = (!events.is_empty()).then_some(events);
        let socket = self.muxer.bridge.as_fd();
        match (self.watched, wanted) {
            (None, Some(events)) => port.watch(socket, SOCKET, events),
            (Some(before), Some(events)) if before != events => port.rewatch(socket, SOCKET, events),
            (Some(_), None) => port.unwatch(socket),
            _ => return Ok(()),
        }
        .map_err(|_| Broken::Wait)?;
        self.watched = wanted;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
