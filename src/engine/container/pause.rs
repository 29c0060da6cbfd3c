// SPDX-License-Identifier: Apache-2.0
//! `pause` and `unpause`: the machine stands still, and goes on.

use super::control::{self, Ask};
use super::records::{Record, Records};
use crate::error::Result;

/// The guest does not notice, but for the time that has passed on its wall clock when somebody looks it up elsewhere.
pub(crate) fn pause(records: &Records, reference: &str) -> Result<Record> {
    ask(records, reference, &Ask::Pause)
}

pub(crate) fn unpause(records: &Records, reference: &str) -> Result<Record> {
    ask(records, reference, &Ask::Unpause)
}

fn ask(records: &Records, reference: &str, ask: &Ask) -> Result<Record> {
    let record = records.find(reference)?;
    control::ask(&records.folder(&record.id), &record, ask, &[])?;
    Ok(record)
}
