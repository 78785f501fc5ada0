//! Progress on standard error, shown only where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line that waits is drawn anew.
const TICK: Duration = Duration::from_millis(120);

/// A bar over `count` things; it disappears when it is dropped.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Starts a bar that says `what` it counts.
    pub(super) fn new(what: &'static str, count: usize) -> Self {
        let bar = ProgressBar::new(count as u64);
        // `indicatif` hides a bar itself where standard error is no terminal.
        let template = "{msg} {wide_bar} {pos}/{len} {eta}";
        bar.set_style(style(template).progress_chars("━╸ "));
        bar.set_message(what);
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Starts a line without an end in sight.
    pub(super) fn line(what: String) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(style("{spinner} {msg} {elapsed}"));
        bar.set_message(what);
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// One more is done.
    pub(super) fn step(&self) {
        self.0.inc(1);
    }

    /// Says what goes on now.
    pub(super) fn say(&self, what: String) {
        self.0.set_message(what);
    }

    /// Runs `print` while the bar is out of the way.
    pub(super) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
