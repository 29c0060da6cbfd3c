// SPDX-License-Identifier: Apache-2.0
//! One request after the other: tries, deadlines, redirects.
//!
//! ```text
//!   ask ─► ask_once ─► 2xx, 4xx: an answer
//!    ▲        ├─► 429, 5xx, a broken connection: again after a pause, five times in all
//!    └────────┴─► 3xx: to where it says, without what was meant for the first alone
//! ```

use super::auth::Auth;
use crate::error::{ImageError, Kind, Result};
use httpdate::parse_http_date;
use rustix::rand::{GetRandomFlags, getrandom};
use rustls::crypto::ring;
use std::fmt::{self, Debug, Display, Formatter};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};
use std::result::Result as StdResult;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use ureq::http::{Request, Response as HttpResponse, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Error as HttpError, Proxy};

const CONNECT: Duration = Duration::from_secs(10);
/// Until the first byte of an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Between bytes.
const STALL: Duration = Duration::from_secs(20);
/// For all of a document.
const DOCUMENT: Duration = Duration::from_secs(60);
pub(super) const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);
/// Longer than this nobody is waited for, whatever he asks for.
const PAUSE_MAX: Duration = Duration::from_secs(30);
const REDIRECTS: u32 = 5;

pub(super) struct Http {
    /// For the registry itself.
    agent: Agent,
    /// Its host, and the agent for all others, if it is spoken to in another way than they are.
    others: Option<(String, Agent)>,
}

impl Debug for Http {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

/// What a request is besides its URL.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    pub(super) what: What<'a>,
    pub(super) accept: &'a [&'a str],
    pub(super) authorization: Option<&'a str>,
    /// Only what comes from here on.
    pub(super) from: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) enum What<'a> {
    #[default]
    Get,
    Head,
    /// With nothing in it.
    Post,
    /// A document of this media type.
    Put(&'a [u8], &'a str),
    /// All of a file, from its front.
    PutFile(&'a File),
    /// A piece, and where it belongs, `FIRST-LAST`.
    Patch(&'a [u8], &'a str),
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Perhaps the next try goes better.
    Connection(HttpError),
    /// It said so, again and again.
    Status(u16),
    Redirect(String),
}

impl Trouble {
    pub(super) fn explain(self, what: impl Display) -> ImageError {
        let error = ImageError::new(Kind::Network, what);
        match self {
            Self::Connection(cause) => error.because(cause),
            Self::Status(status) => {
                error.because(io::Error::other(format!("it answers with status {status}")))
            }
            Self::Redirect(why) => error.because(io::Error::other(why)),
        }
    }
}

#[derive(Debug)]
pub(super) struct Response(HttpResponse<Body>);

impl Response {
    pub(super) fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        Some(self.0.headers().get(name)?.to_str().ok()?.to_owned())
    }

    pub(super) fn headers(&self, name: &str) -> Vec<String> {
        let all = self.0.headers().get_all(name).iter();
        all.filter_map(|value| Some(value.to_str().ok()?.to_owned())).collect()
    }

    /// All of a document of at most so many bytes; the byte after them, if there is one, tells that it has more.
    pub(super) fn document(self, most: u64) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + DOCUMENT;
        let (mut body, mut bytes, mut piece) = (self.into_reader().take(most + 1), Vec::new(), [0; 8192]);
        loop {
            match body.read(&mut piece)? {
                0 => return Ok(bytes),
                n => bytes.extend_from_slice(&piece[..n]),
            }
            if Instant::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }

    pub(super) fn into_reader(self) -> impl Read + Send + 'static {
        self.0.into_body().into_reader()
    }
}

impl Http {
    /// Trusts the system's certificates and these, by whatever proxy there is; of a host in `trusting`, whoever answers there,
    /// and asks him without one if `near`.
    pub(super) fn new(certificates: &[Vec<u8>], trusting: Option<&str>, near: bool) -> Result<Self> {
        let proxy = Proxy::try_from_env();
        let Some(host) = trusting else {
            let proxy = proxy.filter(|_| !near);
            return Ok(Self { agent: agent(trusted(certificates)?, false, proxy), others: None });
        };
        let others = agent(trusted(&[])?, false, proxy.clone());
        let own = agent(Vec::new(), true, proxy.filter(|_| !near));
        Ok(Self { agent: own, others: Some((host.to_ascii_lowercase(), others)) })
    }

    /// Who is named by a registry that needs no certificate does need one.
    fn agent_for(&self, url: &str) -> &Agent {
        match &self.others {
            Some((host, others)) if origin(url).is_none_or(|(_, authority)| authority != *host) => others,
            _ => &self.agent,
        }
    }

    /// Asks a registry for something that should be there.
    pub(super) fn get(&self, url: &str, auth: &Auth, asked: Asked<'_>) -> Result<Response> {
        let response = self.tell(url, auth, asked)?;
        match response.status() {
            200 | 206 => Ok(response),
            404 => {
                let what = format!("{} does not have it, or not for everybody", host_of(url));
                Err(ImageError::new(Kind::NotFound, what))
            }
            status => Err(Trouble::Status(status).explain(format_args!("cannot get {url}"))),
        }
    }

    /// Asks a registry, with what it wants to see of us, and gives what it says to it.
    pub(super) fn tell(&self, url: &str, auth: &Auth, asked: Asked<'_>) -> Result<Response> {
        // A token has its time; who does not take a fresh one will not take the next.
        let mut fresh = false;
        loop {
            // Where it has uploads go is not always where it is.
            let authorization = if auth.is_for(url) { auth.header(self)? } else { None };
            let asked = Asked { authorization: authorization.as_deref(), ..asked };
            let response =
                self.ask(url, asked).map_err(|t| t.explain(format_args!("cannot ask for {url}")))?;
            match response.status() {
                401 if !fresh && auth.refused(authorization.as_deref()) => fresh = true,
                status @ (401 | 403) => return Err(auth.explain(status, host_of(url))),
                _ => return Ok(response),
            }
        }
    }

    /// Asks until there is an answer that asking again would not change.
    pub(super) fn ask(&self, url: &str, asked: Asked<'_>) -> StdResult<Response, Trouble> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (trouble, wanted) = match self.ask_once(url, asked) {
                Ok(response) if !is_passing(response.status()) => return Ok(response),
                Ok(response) => (Trouble::Status(response.status()), retry_after(&response)),
                Err(trouble @ Trouble::Connection(_)) => (trouble, None),
                Err(trouble) => return Err(trouble),
            };
            if tries == TRIES {
                return Err(trouble);
            }
            thread::sleep(wanted.unwrap_or_else(|| pause(tries)).min(PAUSE_MAX));
        }
    }

    /// Follows redirects, and gives whatever is at their end.
    pub(super) fn ask_once(&self, url: &str, asked: Asked<'_>) -> StdResult<Response, Trouble> {
        let mut at = url.to_owned();
        for _ in 0..REDIRECTS {
            let authorization = asked.authorization.filter(|_| origin(&at) == origin(url));
            let response = self.send(&at, Asked { authorization, ..asked }).map_err(Trouble::Connection)?;
            if response.status() == 401 && origin(&at) != origin(url) {
                // Who wants to be shown something is not who it was meant for, whatever he says where to take it.
                return Err(Trouble::Redirect("it sends us on to who wants to know who asks".to_owned()));
            }
            if !matches!(response.status(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            at = target(&at, response.header("location").as_deref()).map_err(Trouble::Redirect)?;
        }
        Err(Trouble::Redirect(format!("it sends us on {REDIRECTS} times")))
    }

    fn send(&self, url: &str, asked: Asked<'_>) -> StdResult<Response, HttpError> {
        let (method, content_type) = match asked.what {
            What::Get => ("GET", None),
            What::Head => ("HEAD", None),
            What::Post => ("POST", None),
            What::Put(_, media_type) => ("PUT", Some(media_type)),
            What::PutFile(_) => ("PUT", Some("application/octet-stream")),
            What::Patch(..) => ("PATCH", Some("application/octet-stream")),
        };
        let agent = self.agent_for(url);
        let range = (asked.from > 0).then(|| format!("bytes={}-", asked.from));
        let mut request = Request::builder().method(method).uri(url);
        let accept = asked.accept.iter().map(|accept| ("accept", *accept));
        let others = [
            ("authorization", asked.authorization),
            ("range", range.as_deref()),
            ("content-type", content_type),
            ("content-range", if let What::Patch(_, range) = asked.what { Some(range) } else { None }),
        ];
        let others = others.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (name, value) in accept.chain(others) {
            request = request.header(name, value);
        }
        let response = match asked.what {
            What::Get | What::Head => agent.run(request.body(())?)?,
            What::Post => agent.run(request.body(&b""[..])?)?,
            What::Put(bytes, _) | What::Patch(bytes, _) => agent.run(request.body(bytes)?)?,
            What::PutFile(mut file) => {
                // An earlier try may have read of it.
                file.rewind()?;
                agent.run(request.body(file)?)?
            }
        };
        Ok(Response(response))
    }
}

fn agent(trusted: Vec<Certificate<'static>>, anybody: bool, proxy: Option<Proxy>) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::from(trusted))
        .disable_verification(anybody)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("isopod/", env!("CARGO_PKG_VERSION")))
        .proxy(proxy)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(ANSWER))
        .timeout_per_read(Some(STALL))
        .timeout_per_write(Some(STALL))
        .tls_config(tls)
        .build();
    Agent::new_with_config(config)
}

fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// In seconds; dates (RFC 9110, section 10.2.3) are as good as nothing.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.header("retry-after")?;
    let date = || parse_http_date(text.trim()).ok()?.duration_since(SystemTime::now()).ok();
    text.trim().parse().ok().map(Duration::from_secs).or_else(date)
}

/// Twice as long each time, and half of it by chance, so that not all come again at once.
pub(super) fn pause(tries: u32) -> Duration {
    let longest = PAUSE * 2u32.saturating_pow(tries.min(6));
    let mut byte = [0];
    let _ = getrandom(&mut byte, GetRandomFlags::empty());
    longest / 2 + longest / 512 * u32::from(byte[0])
}

fn host_of(url: &str) -> &str {
    url.split('/').nth(2).unwrap_or(url)
}

/// Scheme, host and port: what a secret is meant for.
pub(super) fn origin(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    Some((uri.scheme_str()?.to_owned(), uri.authority()?.as_str().to_ascii_lowercase()))
}

/// For a query (RFC 3986, section 2.1).
pub(super) fn escaped(text: &str) -> String {
    let byte = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Where a `Location` leads: anywhere, but not from TLS to none.
pub(super) fn target(from: &str, location: Option<&str>) -> StdResult<String, String> {
    let location = location.ok_or("it sends us on to nowhere")?;
    let (scheme, host) = origin(from).ok_or("it sends us on from nowhere")?;
    let to = match location {
        path if path.starts_with("//") => format!("{scheme}:{path}"),
        path if path.starts_with('/') => format!("{scheme}://{host}{path}"),
        whole => whole.to_owned(),
    };
    match origin(&to) {
        Some((to_scheme, _)) if to_scheme == "https" || (to_scheme == "http" && scheme == "http") => Ok(to),
        _ => Err("it sends us on to where nothing is safe from others".to_owned()),
    }
}

fn trusted(own: &[Vec<u8>]) -> Result<Vec<Certificate<'static>>> {
    let system = rustls_native_certs::load_native_certs().certs;
    let mut all: Vec<_> = system.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    for text in own {
        for item in parse_pem(text) {
            let bad = |e| ImageError::invalid("a certificate for the registry cannot be read").because(e);
            if let PemItem::Certificate(certificate) = item.map_err(bad)? {
                all.push(certificate);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_anywhere_but_out_of_tls() {
        let target = |from, to| target(from, Some(to));
        assert_eq!(target("https://a/v2/x", "/y").unwrap(), "https://a/y");
        assert_eq!(target("https://a/v2/x", "//b/y").unwrap(), "https://b/y");
        assert_eq!(target("https://a/v2/x", "https://b:8/y?z").unwrap(), "https://b:8/y?z");
        assert_eq!(target("http://a:5/x", "http://b/y").unwrap(), "http://b/y");
        for bad in ["http://a/y", "ftp://a/y", "y", "", "file:///etc/passwd"] {
            assert!(target("https://a/v2/x", bad).is_err(), "{bad}");
        }
        assert!(super::target("https://a/", None).is_err());
    }

    #[test]
    fn a_secret_is_meant_for_one_scheme_host_and_port() {
        assert_eq!(origin("https://A:1/x"), origin("https://a:1/y"));
        for other in ["http://a:1/x", "https://a:2/x", "https://a/x", "https://a:1.evil/x"] {
            assert_ne!(origin("https://a:1/x"), origin(other), "{other}");
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        assert!(pause(1) >= PAUSE && pause(1) <= 2 * PAUSE);
        assert!(pause(40) <= PAUSE * 64);
    }
}
