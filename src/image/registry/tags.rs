// SPDX-License-Identifier: Apache-2.0
//! What tags a repository has (distribution specification, "Listing Tags"): page by page, as far as anybody could want.

use super::auth::Scope;
use super::http::{self, Asked, origin};
use super::{Repository, Settings};
use crate::error::{ImageError, Kind, Result};
use crate::reference::Reference;
use serde::Deserialize;

const PAGE_MAX: u64 = 1 << 20;
/// More names than anybody pulls at once, and more pages than they fill.
const TAGS_MAX: usize = 10_000;
const PAGES_MAX: usize = 1000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

/// The references with a tag of the repository in `reference`, in the registry's order.
pub fn tags(reference: &Reference, settings: &Settings) -> Result<Vec<Reference>> {
    let within =
        |e: ImageError| e.within(format_args!("cannot list the tags of {}", reference.familiar_name()));
    let scope = Scope { repository: reference.path().to_owned(), actions: "pull" };
    let repository = Repository::open(reference.domain(), vec![scope], settings).map_err(within)?;
    repository.tags(&format!("{}/{}", reference.domain(), reference.path())).map_err(within)
}

impl Repository {
    /// Each as a reference, with the `name` before it.
    fn tags(&self, name: &str) -> Result<Vec<Reference>> {
        let mut url = format!("{}/tags/list?n=1000", self.base);
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let response = self.http.get(&url, &self.auth, Asked::default())?;
            let next = response.header("link").and_then(|link| next_page(&url, &link));
            let whole = |e| ImageError::new(Kind::Network, "the list did not come whole").because(e);
            let bytes = response.document(PAGE_MAX).map_err(whole)?;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|e| ImageError::invalid("what the registry gives is no list of tags").because(e))?;
            for tag in page.tags.unwrap_or_default() {
                all.push(format!("{name}:{tag}").parse::<Reference>()?);
            }
            match next {
                Some(next) if all.len() <= TAGS_MAX => url = next,
                Some(_) => break,
                None => return Ok(all),
            }
        }
        Err(ImageError::new(Kind::TooLarge, format_args!("there are more than {TAGS_MAX} of them")))
    }
}

/// `</v2/x/tags/list?last=b>; rel="next"` (RFC 8288), at the same registry.
fn next_page(url: &str, link: &str) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = parameters.split(';').any(|p| matches!(p.trim(), "rel=\"next\"" | "rel=next"));
    if !next {
        return None;
    }
    let next = http::target(url, Some(target)).ok()?;
    (origin(&next)? == origin(url)?).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_at_the_same_registry() {
        let url = "https://a:5000/v2/x/tags/list?n=1000";
        let next = |link| next_page(url, link);
        let at = Some("https://a:5000/v2/x/tags/list?last=b".to_owned());
        assert_eq!(next("</v2/x/tags/list?last=b>; rel=\"next\""), at);
        assert_eq!(next("<https://a:5000/v2/x/tags/list?last=b>; rel=next"), at);
        for bad in [
            "",
            "<//evil/x>; rel=next",
            "<https://evil/x>; rel=next",
            "</a>",
            "</a>; rel=prev",
            "</a",
            "<http://a:5000/x>; rel=next",
        ] {
            assert_eq!(next(bad), None, "{bad}");
        }
    }
}
