// SPDX-License-Identifier: Apache-2.0
//! How loading, pulling, pushing, saving or verifying goes: a bar a layer on a terminal, a line a layer elsewhere, nothing if asked to be quiet.

use super::{human, output};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use isopod_engine::{LayerProgress, Progress};
use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
pub(super) struct LoadProgress {
    how: How,
    /// What is said of a layer: that it came, that it need not.
    words: [&'static str; 2],
}

#[derive(Debug)]
enum How {
    Bars(Bars),
    Lines,
    Quiet,
}

/// Those of the layers under way, by their numbers.
#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    each: Mutex<BTreeMap<usize, ProgressBar>>,
}

impl LoadProgress {
    pub(super) fn new(quiet: bool) -> Self {
        let how = match (quiet, stderr().is_terminal()) {
            (true, _) => How::Quiet,
            (false, true) => How::Bars(Bars::new()),
            (false, false) => How::Lines,
        };
        Self { how, words: ["loaded", "already here"] }
    }

    pub(super) fn pushing(quiet: bool) -> Self {
        Self { words: ["pushed", "already there"], ..Self::new(quiet) }
    }

    pub(super) fn saving(quiet: bool) -> Self {
        Self { words: ["saved"; 2], ..Self::new(quiet) }
    }

    pub(super) fn verifying(quiet: bool) -> Self {
        Self { words: ["verified", "verified before"], ..Self::new(quiet) }
    }

    fn say(&self, layer: &LayerProgress, what: &str) {
        match &self.how {
            How::Bars(bars) => bars.say(layer, what),
            How::Lines => output::talk(&format!("{}: {what}", name_of(layer))),
            How::Quiet => {}
        }
    }
}

impl Progress for LoadProgress {
    fn layer_started(&self, layer: &LayerProgress) {
        if let How::Bars(bars) = &self.how {
            bars.start(layer);
        }
    }

    fn layer_waits(&self, layer: &LayerProgress) {
        self.say(layer, "another isopod is at it: waiting");
    }

    fn layer_advanced(&self, layer: &LayerProgress, bytes: u64) {
        if let How::Bars(bars) = &self.how {
            bars.advance(layer, bytes);
        }
    }

    fn layer_again(&self, layer: &LayerProgress) {
        self.say(layer, "came changed: again");
        self.layer_started(layer);
    }

    fn layer_done(&self, layer: &LayerProgress, present: bool) {
        if let How::Bars(bars) = &self.how {
            bars.end(layer);
        }
        self.say(layer, self.words[usize::from(present)]);
    }
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { all, each: Mutex::default() }
    }

    fn start(&self, layer: &LayerProgress) {
        let template = match layer.size {
            Some(_) => "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}",
            None => "{msg} {bytes}",
        };
        let bar = self.all.add(ProgressBar::no_length());
        bar.set_length(layer.size.unwrap_or(0));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(name_of(layer));
        self.with(|each| each.insert(layer.number, bar));
    }

    fn advance(&self, layer: &LayerProgress, bytes: u64) {
        self.with(|each| each.get(&layer.number).map(|bar| bar.inc(bytes)));
    }

    fn end(&self, layer: &LayerProgress) {
        if let Some(bar) = self.with(|each| each.remove(&layer.number)) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    /// A line above the bars.
    fn say(&self, layer: &LayerProgress, what: &str) {
        // If nobody watches, there is nobody to tell.
        let _ = self.all.println(format!("{}: {what}", name_of(layer)));
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<usize, ProgressBar>) -> T) -> T {
        act(&mut self.each.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Bars {
    /// Those that are left are of a load that failed.
    fn drop(&mut self) {
        let _ = self.all.clear();
    }
}

fn name_of(layer: &LayerProgress) -> String {
    let digest = layer.diff_id.to_string();
    let hex = digest.strip_prefix("sha256:").unwrap_or(&digest);
    format!("layer {}/{} {}", layer.number, layer.of, human::short(hex))
}
