// SPDX-License-Identifier: Apache-2.0
//! `isopod history`.

use super::format::{self, Column, Fields, ListArgs};
use super::{Global, Outcome, human};
use clap::{ArgAction, Args};
use isopod_engine::Step;

/// Show how an image was made, the last step first
#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// Name, digest or the beginning of one
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Show ids and commands whole
    #[arg(long)]
    no_trunc: bool,
    /// Sizes and times as people say them, or as they are
    #[arg(short = 'H', long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value_t = true, default_missing_value = "true")]
    human: bool,
    #[command(flatten)]
    list: ListArgs,
}

const FIELDS: [&str; 6] = ["ID", "CreatedSince", "CreatedAt", "CreatedBy", "Size", "Comment"];
/// Of an image's digest.
/// As much of a command as the table shows.
const COMMAND: usize = 45;

pub(super) fn run(global: &Global, args: &HistoryArgs) -> Outcome {
    let (digest, steps) = global.engine()?.history(&args.image)?;
    let hex = digest.hex();
    let id = if args.no_trunc { digest.to_string() } else { human::short(&hex).to_owned() };
    let mut rows: Vec<Fields> = steps.iter().map(|step| fields(step, args)).collect();
    // As Docker has it: of the earlier steps nobody knows an image any more.
    if let Some((_, value)) = rows.first_mut().and_then(|row| row.first_mut()) {
        *value = id;
    }
    format::list(&args.list, &rows, &columns(args.human), &FIELDS)?;
    Ok(0)
}

fn columns(human: bool) -> [Column; 5] {
    let created = if human { "CreatedSince" } else { "CreatedAt" };
    [
        ("IMAGE", "ID"),
        ("CREATED", created),
        ("CREATED BY", "CreatedBy"),
        ("SIZE", "Size"),
        ("COMMENT", "Comment"),
    ]
}

fn fields(step: &Step, args: &HistoryArgs) -> Fields {
    vec![
        ("ID", "<missing>".to_owned()),
        ("CreatedSince", human::said_ago(step.created.as_deref())),
        ("CreatedAt", human::plain(step.created.as_deref().unwrap_or("N/A"))),
        ("CreatedBy", command(&step.created_by, args.no_trunc)),
        ("Size", if args.human { human::size(step.size) } else { step.size.to_string() }),
        ("Comment", human::plain(&step.comment)),
    ]
}

fn command(text: &str, whole: bool) -> String {
    let text = human::plain(&text.replace('\t', " "));
    if whole || text.chars().count() <= COMMAND {
        return text;
    }
    let start: String = text.chars().take(COMMAND - 1).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_cut_to_its_column() {
        assert_eq!(command("RUN\tx \u{1b}", false), "RUN x \u{fffd}");
        assert_eq!(command(&"x".repeat(46), false).chars().count(), COMMAND);
        assert_eq!(command(&"x".repeat(46), true).len(), 46);
    }
}
