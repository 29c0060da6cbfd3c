// SPDX-License-Identifier: Apache-2.0
//! `isopod ps`.

use super::format::{self, Column, Fields, ListArgs};
use super::{Global, Outcome, human};
use clap::Args;
use isopod_engine::{Record, State};

/// List containers
#[derive(Debug, Args)]
pub(super) struct PsArgs {
    /// Those that have exited, too
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    list: ListArgs,
    /// Show ids and commands whole
    #[arg(long)]
    no_trunc: bool,
}

const FIELDS: [&str; 9] =
    ["ID", "Image", "Command", "CreatedAt", "RunningFor", "State", "Status", "Names", "Labels"];
const COLUMNS: [Column; 6] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("NAMES", "Names"),
];
/// As much of a command as the table shows.
const COMMAND: usize = 20;

pub(super) fn run(global: &Global, args: &PsArgs) -> Outcome {
    let now = human::now();
    let list = global.engine()?.list(args.all)?;
    let list: Vec<Fields> = list.iter().map(|record| fields(record, now, args.no_trunc)).collect();
    format::list(&args.list, &list, &COLUMNS, &FIELDS)?;
    Ok(0)
}

fn fields(record: &Record, now: u64, whole: bool) -> Fields {
    let labels: Vec<String> =
        record.spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        ("ID", if whole { record.id.as_str() } else { record.id.short() }.to_owned()),
        ("Image", human::plain(&record.spec.image)),
        ("Command", command(record, whole)),
        ("CreatedAt", record.created.to_string()),
        ("RunningFor", human::ago(record.created, now)),
        ("State", record.state.name().to_owned()),
        ("Status", status(&record.state, now)),
        ("Names", record.name.to_string()),
        ("Labels", human::plain(&labels.join(","))),
    ]
}

fn command(record: &Record, whole: bool) -> String {
    let words: Vec<_> = record.command.iter().map(|word| word.shown()).collect();
    let text = human::plain(&words.join(" "));
    if whole || text.chars().count() <= COMMAND {
        return format!("\"{text}\"");
    }
    let start: String = text.chars().take(COMMAND - 1).collect();
    format!("\"{start}…\"")
}

fn status(state: &State, now: u64) -> String {
    match state {
        State::Created => "Created".to_owned(),
        State::Starting => "Starting".to_owned(),
        State::Running { since } => format!("Up {}", human::duration(now.saturating_sub(*since))),
        State::Paused { since } => format!("Up {} (Paused)", human::duration(now.saturating_sub(*since))),
        State::Exited(exit) => {
            format!("Exited ({}) {}", exit.code, human::ago(exit.at, now))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_engine::Exit;

    #[test]
    fn a_status_is_told_in_dockers_words() {
        assert_eq!(status(&State::Running { since: 10 }, 15), "Up 5 seconds");
        assert_eq!(status(&State::Exited(Exit::new(137, 0)), 120), "Exited (137) 2 minutes ago");
    }
}
