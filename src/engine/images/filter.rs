// SPDX-License-Identifier: Apache-2.0
//! `--filter KEY=VALUE` of images, as Docker has it: an image fits if one of the `reference`s does and all of the rest.

use super::pattern::Pattern;
use super::{Images, damaged, translated};
use crate::container::now;
use crate::error::{EngineError, Kind, Result};
use crate::time;
use isopod_image::Summary;
use std::cmp::Reverse;
use std::result::Result as StdResult;

/// Which images are meant; all of them, to begin with.
#[derive(Debug, Clone, Default)]
pub struct ImageFilters {
    dangling: Option<bool>,
    references: Vec<Pattern>,
    labels: Vec<Label>,
    /// Images, and whether those that are meant are older.
    beside: Vec<(String, bool)>,
    /// Seconds since the epoch.
    until: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Label {
    key: String,
    value: Option<String>,
    is_there: bool,
}

impl ImageFilters {
    /// Of a list.
    pub const LISTED: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];
    /// Of what is to go.
    pub const PRUNED: &[&str] = &["label", "label!", "until"];

    /// What was typed, as far as these keys go.
    pub fn parse(typed: &[String], known: &[&str]) -> Result<Self> {
        let mut filters = Self::default();
        for text in typed {
            filters.add(text, known).map_err(|e| {
                EngineError::new(Kind::Invalid, format!("--filter {} is not possible", text.escape_debug()))
                    .because(e)
                    .hint(format!("the form is KEY=VALUE; keys are {}", known.join(", ")))
            })?;
        }
        Ok(filters)
    }

    /// As well, and only, those of this name, in which `*` stands for any part.
    pub fn named(mut self, name: &str) -> Result<Self> {
        let bad = |why| {
            EngineError::new(Kind::Invalid, format!("`{}` names no images", name.escape_debug())).because(why)
        };
        self.references.push(Pattern::parse(name).ok_or(PATTERN).map_err(bad)?);
        Ok(self)
    }

    fn add(&mut self, text: &str, known: &[&str]) -> StdResult<(), String> {
        let (key, value) = text.split_once('=').ok_or("it has no `=`")?;
        let key = key.trim().to_lowercase();
        if !known.contains(&key.as_str()) {
            return Err(format!("no filter is called `{}`", key.escape_debug()));
        }
        match key.as_str() {
            "dangling" => self.dangling = Some(boolean(value).ok_or("it is true or false")?),
            "reference" => self.references.push(Pattern::parse(value).ok_or(PATTERN)?),
            "before" => self.beside.push((value.to_owned(), true)),
            "since" => self.beside.push((value.to_owned(), false)),
            "until" => {
                let moment = time::moment(value, now());
                let why = "it is neither a time (RFC 3339, seconds since 1970) nor a duration (24h)";
                self.until = Some(moment.ok_or(why)?.min(self.until.unwrap_or(u64::MAX)));
            }
            key => {
                let (name, value) = match value.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (value, None),
                };
                self.labels.push(Label { key: name.to_owned(), value, is_there: key == "label" });
            }
        }
        Ok(())
    }

    /// Whether an image fits, by all but other images.
    pub(super) fn fit(&self, image: &Summary) -> bool {
        let named = |pattern: &Pattern| {
            image.reference.as_ref().is_some_and(|reference| {
                pattern.matches(&reference.familiar()) || pattern.matches(&reference.familiar_name())
            })
        };
        let labelled = |label: &Label| {
            let found = image.labels.get(&label.key);
            let same = found.is_some_and(|found| label.value.as_ref().is_none_or(|wanted| wanted == found));
            same == label.is_there
        };
        self.dangling.is_none_or(|dangling| dangling == image.reference.is_none())
            && (self.references.is_empty() || self.references.iter().any(named))
            && self.labels.iter().all(labelled)
            && self.until.is_none_or(|until| created(image) < until)
    }
}

impl Images {
    /// The images these filters let through, the youngest first; each as often as it has names.
    pub(crate) fn list(&self, filters: &ImageFilters) -> Result<Vec<Summary>> {
        let mut list = self.store.list().map_err(damaged)?;
        let bound = |(image, older): &(String, bool)| {
            let digest = self.store.digest_of(self.stored(image)?).map_err(translated)?;
            Ok((list.iter().find(|summary| summary.digest == digest).map_or(0, created), *older))
        };
        let bounds = filters.beside.iter().map(bound).collect::<Result<Vec<_>>>()?;
        let within = |image: &Summary| {
            let at = created(image);
            bounds.iter().all(|(bound, older)| if *older { at < *bound } else { at > *bound })
        };
        list.retain(|image| filters.fit(image) && within(image));
        list.sort_by_key(|image| Reverse(created(image)));
        Ok(list)
    }
}

const PATTERN: &str = "a pattern has `*`, `?`, `[…]`, and a `\\` before each that means itself";

/// Seconds since the epoch; what does not say is as old as can be.
fn created(image: &Summary) -> u64 {
    image.created.as_deref().and_then(time::rfc3339).unwrap_or(0)
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_image::Digest;
    use std::error::Error;

    fn image(name: Option<&str>) -> Summary {
        Summary {
            reference: name.map(|name| name.parse().unwrap()),
            digest: Digest::of(b"x"),
            size: 0,
            created: Some("2024-02-29T12:30:45Z".to_owned()),
            layers: 1,
            labels: [("a".to_owned(), "b".to_owned())].into(),
        }
    }

    fn fits(filters: &[&str], name: Option<&str>) -> bool {
        let filters: Vec<_> = filters.iter().map(|&text| text.to_owned()).collect();
        let known = [ImageFilters::LISTED, ImageFilters::PRUNED].concat();
        ImageFilters::parse(&filters, &known).unwrap().fit(&image(name))
    }

    #[test]
    fn an_image_fits_if_one_reference_does_and_all_of_the_rest() {
        let named = Some("user/app:1");
        for (filters, name, expected) in [
            (&[][..], None, true),
            (&["dangling=true"], None, true),
            (&["dangling=true"], named, false),
            (&["dangling=0"], named, true),
            (&["reference=user/*"], named, true),
            (&["reference=user/app:1"], named, true),
            (&["reference=app"], named, false),
            (&["reference=app", "reference=*/*:1"], named, true),
            (&["reference=*"], None, false),
            (&["label=a"], named, true),
            (&["label=a=b", "label=c"], named, false),
            (&["label!=a"], named, false),
            (&["label!=a=c"], named, true),
            (&["until=2024-03-01"], named, true),
            (&["until=2024-03-01", "until=2024-02-01"], named, false),
            (&["LABEL=a"], named, true),
        ] {
            assert_eq!(fits(filters, name), expected, "{filters:?}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_those_there_are() {
        for bad in ["colour=red", "dangling", "dangling=perhaps", "until=soon", "reference=[", "label!=a"] {
            let error = ImageFilters::parse(&[bad.to_owned()], ImageFilters::LISTED).unwrap_err();
            assert!(
                error.source().is_some() && error.advice().unwrap().contains("before, dangling"),
                "{bad}"
            );
        }
    }
}
