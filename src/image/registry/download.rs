// SPDX-License-Identifier: Apache-2.0
//! A blob on its way: when the connection breaks, it goes on where it was (RFC 9110, section 14.2), until it is there, or too
//! slow, or broken too often without a byte in between.

use super::auth::Auth;
use super::http::{Asked, Http, pause};
use crate::error::{ImageError, Kind, Result};
use std::fmt::{self, Debug, Formatter};
use std::io::{self, ErrorKind, Read};
use std::thread;
use std::time::{Duration, Instant};

/// Breaks in a row without a byte between them.
const BREAKS: u32 = 5;
/// Within this, plus a second for as many bytes as below, it has to be there.
const PATIENCE: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 16 << 10;

pub(super) struct Download<'a> {
    http: &'a Http,
    auth: &'a Auth,
    url: String,
    body: Option<Box<dyn Read + Send>>,
    /// What is told again before anything new comes.
    skip: u64,
    size: u64,
    done: u64,
    breaks: u32,
    deadline: Instant,
}

impl Debug for Download<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("url", &self.url).field("done", &self.done).finish_non_exhaustive()
    }
}

impl<'a> Download<'a> {
    pub(super) fn begin(http: &'a Http, auth: &'a Auth, url: String, size: u64) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE + Duration::from_secs(size / SLOWEST);
        let body = http.get(&url, auth, Asked::default())?;
        let body = Some(Box::new(body.into_reader()) as Box<dyn Read + Send>);
        Ok(Self { http, auth, url, body, skip: 0, size, done: 0, breaks: 0, deadline })
    }

    /// Asks for what is missing.
    fn go_on(&mut self) -> Result<()> {
        let response = self.http.get(&self.url, self.auth, Asked { from: self.done, ..Asked::default() })?;
        let begins = match response.status() {
            206 => response.header("content-range").as_deref().and_then(first_of_range),
            // It has not listened, and tells all of it again.
            _ => Some(0),
        };
        // What begins elsewhere is no answer, and read as one that ends at once.
        let skip = begins.and_then(|begins| self.done.checked_sub(begins));
        self.skip = skip.unwrap_or(0);
        self.body = Some(match skip {
            Some(_) => Box::new(response.into_reader()),
            None => Box::new(io::empty()),
        });
        Ok(())
    }

    fn broken(&mut self, why: io::Error) -> io::Result<()> {
        self.body = None;
        self.breaks += 1;
        if self.breaks > BREAKS {
            let what = format!("it broke off {} times in a row", self.breaks);
            return Err(io::Error::other(ImageError::new(Kind::Network, what).because(why)));
        }
        thread::sleep(pause(self.breaks));
        Ok(())
    }
}

/// `bytes 5-9/10`
fn first_of_range(text: &str) -> Option<u64> {
    text.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

impl Read for Download<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.done < self.size && !buf.is_empty() {
            if Instant::now() > self.deadline {
                let slow = format!("the registry is too slow: {} of {} bytes came", self.done, self.size);
                return Err(io::Error::other(ImageError::new(Kind::Network, slow)));
            }
            let Some(body) = &mut self.body else {
                // A registry that says no says it for good; one that says nothing was asked often enough.
                self.go_on().map_err(io::Error::other)?;
                continue;
            };
            let left = if self.skip > 0 { self.skip } else { self.size - self.done };
            let room = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
            match body.read(&mut buf[..room]) {
                Ok(0) => self.broken(ErrorKind::UnexpectedEof.into())?,
                Ok(n) if self.skip > 0 => self.skip -= n as u64,
                Ok(n) => {
                    self.done += n as u64;
                    self.breaks = 0;
                    return Ok(n);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => self.broken(e)?,
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_where_they_begin() {
        assert_eq!(first_of_range("bytes 5-9/10"), Some(5));
        assert_eq!(first_of_range("bytes 0-0/*"), Some(0));
        for bad in ["", "bytes */10", "5-9/10", "bytes -5"] {
            assert_eq!(first_of_range(bad), None, "{bad}");
        }
    }
}
