//! A deployment as it goes on: bars on a terminal, plain lines anywhere else. Always on standard
//! error, because standard output is for data.

use crate::api::{Happening, Progress};
use greenlight_protocol::InstanceId;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

/// What an instance goes through in a cut-over, in order.
const STEPS: [&str; 4] = ["prepared", "armed", "held", "switched"];
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
    epoch: u64,
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
        let interactive = std::io::stderr().is_terminal() && std::env::var_os("CI").is_none();
        if interactive {
            Self::Bars(Bars::new(talk))
        } else {
            Self::lines()
        }
    }

    /// Lines, wherever it goes.
    pub fn lines() -> Self {
        Self::Lines { began_ms: None }
    }

    /// Shows one thing that happened.
    pub fn show(&mut self, progress: &Progress) {
        match self {
            Self::Lines { began_ms } => {
                let began = *began_ms.get_or_insert(progress.at_ms);
                let since = progress.at_ms.saturating_sub(began);
                let (seconds, millis) = (since / 1000, since % 1000);
                eprintln!("[{seconds:>3}.{millis:03}] {}", line(&progress.what));
            }
            Self::Bars(bars) => {
                if bars.talk == Talk::Lines {
                    // A terminal that is gone does not matter to the deployment.
                    drop(bars.screen.println(line(&progress.what)));
                }
                bars.show(&progress.what);
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

impl Bars {
    fn new(talk: Talk) -> Self {
        let screen = MultiProgress::new();
        let head = screen.add(ProgressBar::new_spinner());
        head.enable_steady_tick(TICK);
        Self {
            screen,
            head,
            talk,
            instances: BTreeMap::new(),
            epoch: 0,
        }
    }

    fn show(&mut self, what: &Happening) {
        match what {
            Happening::Phase { epoch, phase } => {
                if *epoch != self.epoch {
                    self.epoch = *epoch;
                    for bar in self.instances.values() {
                        bar.set_position(0);
                        bar.set_message("");
                    }
                }
                self.head.set_message(format!("cut-over {epoch}: {phase}"));
            }
            Happening::Instance {
                epoch,
                instance,
                report,
                reason,
            } => {
                if *epoch != self.epoch {
                    return;
                }
                let bar = self.bar(instance);
                if let Some(at) = STEPS.iter().position(|step| step == report) {
                    bar.set_position(at as u64 + 1);
                }
                bar.set_message(match reason {
                    // The whole reason comes with the outcome; a bar has one line.
                    Some(reason) => format!("{report}: {}", first_line(reason)),
                    None => report.clone(),
                });
            }
            Happening::Finished { outcome } => {
                self.head
                    .set_message(first_line(&outcome.to_string()).to_owned());
            }
        }
    }

    fn bar(&mut self, instance: &InstanceId) -> &ProgressBar {
        self.instances.entry(instance.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("  {prefix:<16} [{bar:24}] {msg}")
                .expect("the template is well formed")
                .progress_chars("=> ");
            let bar = ProgressBar::new(STEPS.len() as u64).with_style(style);
            bar.set_prefix(instance.0.clone());
            self.screen.add(bar)
        })
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// One line of progress for people.
pub fn line(what: &Happening) -> String {
    match what {
        Happening::Phase { epoch, phase } => format!("cut-over {epoch}: {phase}"),
        Happening::Instance {
            instance,
            report,
            reason: None,
            ..
        } => format!("  {instance}: {report}"),
        Happening::Instance {
            instance,
            report,
            reason: Some(reason),
            ..
        } => format!("  {instance}: {report}: {reason}"),
        Happening::Finished { outcome } => outcome.to_string(),
    }
}
