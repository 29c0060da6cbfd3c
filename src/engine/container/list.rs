// SPDX-License-Identifier: Apache-2.0
//! `ps`: what containers there are.

use super::records::{Record, Records};
use crate::error::Result;

/// Those that are not over, or all; the youngest first.
pub(crate) fn list(records: &Records, all: bool) -> Result<Vec<Record>> {
    records.sweep()?;
    let mut list = records.list()?;
    list.retain(|record| all || !record.state.is_over());
    Ok(list)
}
