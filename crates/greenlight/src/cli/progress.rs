//! The progress of a deployment: bars on a terminal, plain lines anywhere else. Always on standard
//! error, because standard output is for data.

use crate::demo::Printer;
use greenlight_link::api::{DeploymentEvent, InstanceProgress, NumberedEvent};
use greenlight_link::printable::{lines, one_line};
use greenlight_link::receipt::not_seen;
use greenlight_protocol::{Epoch, InstanceId};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::time::Duration;

/// What an instance goes through in a cut-over: prepared, armed, held, switched.
const STEPS: u64 = 4;
/// How often a bar that waits moves.
const TICK: Duration = Duration::from_millis(100);

/// Shows a deployment's progress.
pub enum Display {
    /// A line for each thing that happens.
    Lines {
        /// When the first thing happened, to tell the time since.
        began_ms: Option<u64>,
    },
    /// A bar for each instance.
    Bars(Bars),
}

/// The bars of a terminal.
pub struct Bars {
    screen: MultiProgress,
    head: ProgressBar,
    talk: Talk,
    instances: BTreeMap<InstanceId, ProgressBar>,
    epoch: Option<Epoch>,
}

/// Whether bars come with a line for each thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    Quiet,
    Lines,
}

impl Display {
    /// Bars on a terminal; lines in a pipe, a file or a CI job.
    pub fn suited() -> Self {
        Self::for_terminal(Talk::Quiet)
    }

    /// The same, with lines above the bars of a terminal as well.
    pub fn talkative() -> Self {
        Self::for_terminal(Talk::Lines)
    }

    fn for_terminal(talk: Talk) -> Self {
        let stderr = ProgressDrawTarget::stderr();
        // Hidden is what it is in a pipe, and on a terminal that cannot draw (`TERM=dumb`).
        if stderr.is_hidden() || std::env::var_os("CI").is_some() {
            Self::lines()
        } else {
            Self::Bars(Bars::on(stderr, talk))
        }
    }

    /// Lines, wherever it goes.
    pub fn lines() -> Self {
        Self::Lines { began_ms: None }
    }

    /// Shows one thing that happened.
    pub fn show(&mut self, progress: &NumberedEvent) {
        match self {
            Self::Lines { began_ms } => {
                let began = *began_ms.get_or_insert(progress.at_ms);
                let since = progress.at_ms.saturating_sub(began);
                let (seconds, millis) = (since / 1000, since % 1000);
                eprintln!("[{seconds:>3}.{millis:03}] {}", line(&progress.event));
            }
            Self::Bars(bars) => {
                if bars.talk == Talk::Lines {
                    // A terminal that is gone does not matter to the deployment.
                    drop(bars.screen.println(line(&progress.event)));
                }
                bars.show(&progress.event);
            }
        }
    }

    /// A remark, above the bars if there are any.
    pub fn say(&self, text: &str) {
        match self {
            Self::Lines { .. } => eprintln!("{text}"),
            // A terminal that is gone does not matter to the deployment.
            Self::Bars(bars) => drop(bars.screen.println(text)),
        }
    }

    /// Nothing more will happen.
    pub fn end(&mut self) {
        if let Self::Bars(bars) = self {
            for bar in bars.instances.values() {
                bar.abandon();
            }
            bars.head.finish_and_clear();
            if bars.talk == Talk::Lines && !bars.instances.is_empty() {
                // The last bar ends without one: a report below it begins on a line of its own.
                eprintln!();
            }
        }
    }
}

impl Printer for Display {
    fn show(&mut self, event: &NumberedEvent) {
        self.show(event);
    }

    fn say(&self, text: &str) {
        self.say(text);
    }

    fn end(&mut self) {
        self.end();
    }
}

impl Bars {
    fn on(target: ProgressDrawTarget, talk: Talk) -> Self {
        let screen = MultiProgress::with_draw_target(target);
        let head = screen.add(ProgressBar::new_spinner());
        head.enable_steady_tick(TICK);
        Self {
            screen,
            head,
            talk,
            instances: BTreeMap::new(),
            epoch: None,
        }
    }

    fn show(&mut self, event: &DeploymentEvent) {
        match event {
            DeploymentEvent::Phase { epoch, phase } => {
                if self.epoch != Some(*epoch) {
                    self.epoch = Some(*epoch);
                    for bar in self.instances.values() {
                        bar.set_position(0);
                        bar.set_message("");
                    }
                }
                self.head.set_message(format!("cut-over {epoch}: {phase}"));
            }
            DeploymentEvent::Instance {
                epoch,
                instance,
                progress,
            } => {
                if self.epoch != Some(*epoch) {
                    return;
                }
                let bar = self.bar(instance);
                if let Some(steps) = steps(progress) {
                    bar.set_position(steps);
                }
                // The whole reason comes with the outcome; a bar has one line.
                bar.set_message(first_line(&words(progress)));
            }
            DeploymentEvent::Finished { outcome } => {
                self.head.set_message(first_line(&outcome.to_string()));
            }
        }
    }

    fn bar(&mut self, instance: &InstanceId) -> &ProgressBar {
        self.instances.entry(instance.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("  {prefix:<16} [{bar:24}] {msg}")
                .expect("the template is well formed")
                .progress_chars("=> ");
            let bar = ProgressBar::new(STEPS).with_style(style);
            bar.set_prefix(one_line(&instance.0));
            self.screen.add(bar)
        })
    }
}

fn first_line(text: &str) -> String {
    one_line(text.lines().next().unwrap_or_default())
}

/// One line of progress for people.
fn line(event: &DeploymentEvent) -> String {
    match event {
        DeploymentEvent::Phase { epoch, phase } => format!("cut-over {epoch}: {phase}"),
        DeploymentEvent::Instance {
            instance, progress, ..
        } => format!("  {}: {}", one_line(&instance.0), lines(&words(progress))),
        DeploymentEvent::Finished { outcome } => lines(&outcome.to_string()),
    }
}

/// How many steps of a cut-over an instance has behind it, if it has made one.
fn steps(progress: &InstanceProgress) -> Option<u64> {
    match progress {
        InstanceProgress::Prepared => Some(1),
        InstanceProgress::Armed => Some(2),
        InstanceProgress::Held => Some(3),
        InstanceProgress::Switched => Some(STEPS),
        InstanceProgress::PrepareFailed { .. }
        | InstanceProgress::PeersReady
        | InstanceProgress::PeersNotReady { .. }
        | InstanceProgress::BeforeSwitchDone { .. }
        | InstanceProgress::BeforeSwitchFailed { .. }
        | InstanceProgress::HoldRefused { .. }
        | InstanceProgress::SwitchFailed { .. }
        | InstanceProgress::Aborted
        | InstanceProgress::Retired
        | InstanceProgress::Unhealthy { .. } => None,
    }
}

/// How far an instance is, and why not further if it gave a reason.
fn words(progress: &InstanceProgress) -> String {
    match progress {
        InstanceProgress::Prepared => "prepared".to_owned(),
        InstanceProgress::PrepareFailed { reason } => format!("not prepared: {reason}"),
        InstanceProgress::PeersReady => "sees its peers ready".to_owned(),
        InstanceProgress::PeersNotReady { unseen } => {
            format!("does not see all peers ready: {}", not_seen(unseen))
        }
        InstanceProgress::BeforeSwitchDone { output } => format!("ran before_switch: {output}"),
        InstanceProgress::BeforeSwitchFailed { reason } => {
            format!("failed before_switch: {reason}")
        }
        InstanceProgress::Armed => "armed".to_owned(),
        InstanceProgress::Held => "held".to_owned(),
        InstanceProgress::HoldRefused { reason } => format!("not held: {reason}"),
        InstanceProgress::Switched => "switched".to_owned(),
        InstanceProgress::SwitchFailed { reason } => format!("not switched: {reason}"),
        InstanceProgress::Aborted => "back on the old release".to_owned(),
        InstanceProgress::Retired => "retired".to_owned(),
        InstanceProgress::Unhealthy { reason, .. } => format!("unhealthy: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_link::api::PhaseName;
    use greenlight_protocol::Outcome;
    use indicatif::TermLike;
    use std::io;
    use std::sync::{Arc, Mutex, MutexGuard};

    #[test]
    fn a_terminal_shows_one_bar_for_each_instance_which_grows_with_its_steps() {
        let screen = Screen::default();
        let mut bars = bars(&screen, Talk::Quiet);
        bars.show(&phase(7, PhaseName::Preparing));
        let steps = [
            (InstanceProgress::Prepared, "prepared"),
            (InstanceProgress::Armed, "armed"),
            (InstanceProgress::Held, "held"),
            (InstanceProgress::Switched, "switched"),
        ];
        for (before, (progress, step)) in steps.into_iter().enumerate() {
            for name in ["a", "b"] {
                bars.show(&report(7, name, progress.clone()));
                let bar = screen.bar(name);
                assert_eq!(bar.matches('=').count(), (before + 1) * 6, "{bar}");
                assert!(bar.ends_with(step), "{bar}");
            }
        }
        assert!(screen.shows("cut-over 7: preparing"));
    }

    #[test]
    fn another_cut_over_begins_with_empty_bars_and_late_words_of_the_last_change_nothing() {
        let screen = Screen::default();
        let mut bars = bars(&screen, Talk::Quiet);
        bars.show(&phase(7, PhaseName::Switching));
        bars.show(&report(7, "a", InstanceProgress::Switched));
        bars.show(&phase(8, PhaseName::Holding));
        bars.show(&report(7, "a", InstanceProgress::Retired));
        let bar = screen.bar("a");
        assert!(bar.ends_with(']') && !bar.contains('='), "{bar}");

        let reason = "it is busy\nvery busy".to_owned();
        bars.show(&report(8, "a", InstanceProgress::HoldRefused { reason }));
        assert!(screen.bar("a").ends_with("not held: it is busy"));
    }

    #[test]
    fn what_is_said_is_above_the_bars_which_stay_when_all_is_over() {
        let screen = Screen::default();
        let mut display = Display::Bars(bars(&screen, Talk::Quiet));
        let show = |display: &mut Display, what| {
            display.show(&NumberedEvent {
                number: 1,
                at_ms: 1,
                deployment: "d".into(),
                event: what,
            });
        };
        show(&mut display, phase(7, PhaseName::Switching));
        show(&mut display, report(7, "a", InstanceProgress::Switched));
        display.say("note: a remark");
        assert!(screen.shows("note: a remark"));
        let outcome = Outcome::Promoted;
        show(&mut display, DeploymentEvent::Finished { outcome });
        assert!(screen.shows("promoted"));
        display.end();
        assert!(screen.bar("a").ends_with("switched"));
        assert!(!screen.shows("promoted"));
    }

    fn phase(epoch: u64, phase: PhaseName) -> DeploymentEvent {
        let epoch = Epoch(epoch);
        DeploymentEvent::Phase { epoch, phase }
    }

    fn report(epoch: u64, instance: &str, progress: InstanceProgress) -> DeploymentEvent {
        DeploymentEvent::Instance {
            epoch: Epoch(epoch),
            instance: instance.into(),
            progress,
        }
    }

    fn bars(screen: &Screen, talk: Talk) -> Bars {
        Bars::on(
            ProgressDrawTarget::term_like(Box::new(screen.clone())),
            talk,
        )
    }

    /// A terminal that keeps what was drawn last.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<Drawn>>);

    #[derive(Debug, Default)]
    struct Drawn {
        /// Whole, as a person sees it.
        shown: Vec<String>,
        /// Until it is flushed.
        next: Vec<String>,
    }

    impl Screen {
        fn drawn(&self) -> MutexGuard<'_, Drawn> {
            self.0.lock().expect("nobody panics with it")
        }

        fn shows(&self, text: &str) -> bool {
            self.drawn().shown.iter().any(|line| line.contains(text))
        }

        /// The one bar of an instance.
        fn bar(&self, name: &str) -> String {
            let drawn = self.drawn();
            let its = |line: &&String| line.trim_start().starts_with(&format!("{name} "));
            let bars: Vec<_> = drawn.shown.iter().filter(its).collect();
            assert_eq!(bars.len(), 1, "{:?}", drawn.shown);
            bars[0].trim_end().to_owned()
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            80
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.drawn().next.push(text.to_owned());
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn flush(&self) -> io::Result<()> {
            let mut drawn = self.drawn();
            drawn.shown = std::mem::take(&mut drawn.next);
            Ok(())
        }

        // Every drawing is a whole one, so where the cursor was does not matter.
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
    }
}
