// SPDX-License-Identifier: Apache-2.0
//! Windows: how much of a stream may be under way.
//!
//! ```text
//!    writer                              reader
//!    SendWindow::take(n) ── Data(n) ──►  ReceiveWindow::received(n)   (more than the window: a lie)
//!    SendWindow::grant(k) ◄─ Window(k) ─ ReceiveWindow::consumed(n)   (told in halves, not byte by byte)
//! ```

/// How much a stream may be ahead of its reader at the start, on both sides, without a word.
pub const INITIAL: u32 = 256 * 1024;

/// The writer's side.
#[derive(Debug)]
pub struct SendWindow(u32);

/// The reader granted more than any window holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer broke the stream's window")]
pub struct WindowError;

impl Default for SendWindow {
    fn default() -> Self {
        Self(INITIAL)
    }
}

impl SendWindow {
    /// To a reader who still has `held` bytes from another life.
    pub fn behind(held: u32) -> Self {
        Self(INITIAL.saturating_sub(held))
    }

    /// Bytes that may be sent now.
    pub fn room(&self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// `n` bytes are being sent; the caller asked `room` first.
    pub fn take(&mut self, n: usize) {
        self.0 = self.0.saturating_sub(u32::try_from(n).unwrap_or(u32::MAX));
    }

    pub fn grant(&mut self, more: u32) -> Result<(), WindowError> {
        match self.0.checked_add(more) {
            Some(n) if n <= INITIAL => {
                self.0 = n;
                Ok(())
            }
            _ => Err(WindowError),
        }
    }
}

/// The reader's side.
#[derive(Debug)]
pub struct ReceiveWindow {
    open: u32,
    consumed: u32,
}

impl Default for ReceiveWindow {
    fn default() -> Self {
        Self { open: INITIAL, consumed: 0 }
    }
}

impl ReceiveWindow {
    /// Of a reader who still has `held` bytes from another life.
    pub fn behind(held: u32) -> Self {
        Self { open: INITIAL.saturating_sub(held), consumed: 0 }
    }

    /// `n` bytes came; an error if the writer had no room for them.
    pub fn received(&mut self, n: usize) -> Result<(), WindowError> {
        let n = u32::try_from(n).map_err(|_| WindowError)?;
        self.open = self.open.checked_sub(n).ok_or(WindowError)?;
        Ok(())
    }

    /// `n` bytes were passed on; gives what to grant the writer, once it is worth a frame.
    pub fn consumed(&mut self, n: usize) -> Option<u32> {
        self.consumed = self.consumed.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        if self.consumed < INITIAL / 2 {
            return None;
        }
        let more = self.consumed;
        self.consumed = 0;
        self.open = self.open.saturating_add(more).min(INITIAL);
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_honest_pair_never_errs_and_never_stalls_for_good(steps in prop::collection::vec(1usize..70_000, 1..200)) {
            let (mut send, mut receive) = (SendWindow::default(), ReceiveWindow::default());
            let mut held = 0;
            for step in steps {
                let n = step.min(send.room());
                send.take(n);
                receive.received(n).unwrap();
                held += n;
                if n < step {
                    let grant = receive.consumed(held).expect("a full window is worth a grant");
                    send.grant(grant).unwrap();
                    held = 0;
                }
            }
        }
    }

    #[test]
    fn a_writer_that_ignores_the_window_is_caught() {
        let mut receive = ReceiveWindow::default();
        receive.received(INITIAL as usize).unwrap();
        assert_eq!(receive.received(1), Err(WindowError));
    }

    #[test]
    fn a_reader_that_grants_what_was_never_sent_is_caught() {
        assert_eq!(SendWindow::default().grant(1), Err(WindowError));
    }
}
