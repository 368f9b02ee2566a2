//! How far the walk has come, for whoever watches; nothing is shown if nobody does.

use std::io::{self, IsTerminal};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::entry::shown;

/// A line on the terminal, gone when it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    read_bytes: u64,
}

impl Progress {
    /// A bar if it is known how many entries there were the last time, or else just a count.
    pub(crate) fn new(entries_before: u64) -> Self {
        let bar = if !io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else if entries_before > 0 {
            let template = "{bar:30} {human_pos} of about {human_len}  {wide_msg}";
            styled(ProgressBar::new(entries_before), template)
        } else {
            styled(
                ProgressBar::no_length(),
                "{spinner} {human_pos}  {wide_msg}",
            )
        };
        Self { bar, read_bytes: 0 }
    }

    /// A directory is about to be read.
    pub(crate) fn enter(&self, directory: &[u8]) {
        if !self.bar.is_hidden() {
            let read = HumanBytes(self.read_bytes);
            self.bar
                .set_message(format!("{read} read  {}", shown(directory)));
        }
    }

    /// An entry was looked at, and that much of it was read.
    pub(crate) fn entry(&mut self, read_bytes: u64) {
        self.read_bytes += read_bytes;
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template)
        .expect("OK because the templates are constants of this file");
    bar.with_style(style)
}
