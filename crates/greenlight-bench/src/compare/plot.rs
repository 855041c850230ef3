//! The comparison as a picture: for each way and machine, who answered when. SVG, written by hand.
//!
//! ```text
//!   way        A  ▁▁▁▁▁▁▁████████   the height is the traffic that the machine got,
//!              B  ▁▁▁▁▁▁▁▁▁▁▁████   the colour is who answered: old, new, nobody
//!                 0 s ──────▶
//! ```

use super::{RATE, Series};
use greenlight::load::Sample;
use std::fmt::Write as _;

const WIDTH: f64 = 1000.0;
/// Names are left of this, and what was measured is right of the plot.
const LEFT: f64 = 218.0;
const RIGHT: f64 = 210.0;
const TOP: f64 = 84.0;
/// One machine's height, when it gets all traffic.
const LANE: f64 = 30.0;
const LANE_GAP: f64 = 4.0;
const ROW: f64 = 2.0 * LANE + LANE_GAP + 22.0;
/// The meaning of a step of the picture.
const BIN_NS: u64 = 100_000_000;
const OLD: &str = "#8fa3bf";
const NEW: &str = "#2e9e5b";
const FAILED: &str = "#d62f3a";
/// While both answer.
const MIXED: &str = "#ffe3a3";
const INK: &str = "#1f2933";
const FAINT: &str = "#6b7785";

/// What a machine did with the requests of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bin {
    old: u32,
    new: u32,
    failed: u32,
}

impl Bin {
    /// Where the kinds begin and end, on top of each other.
    fn stacked(&self) -> [u32; 4] {
        let both = self.old + self.new;
        [0, self.old, both, both + self.failed]
    }
}

/// The picture.
pub(super) fn draw(all: &[Series]) -> String {
    let lengths = all.iter().map(|series| {
        let span = &series.shown.span;
        span.ended_ns - span.began_ns
    });
    let seconds = lengths.max().unwrap_or(0).div_ceil(1_000_000_000).max(1);
    let bottom = TOP + ROW * float(all.len());
    let height = bottom + 44.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" \
         font-size=\"13\" fill=\"{INK}\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"28\" font-size=\"17\" font-weight=\"600\">One deployment, as \
         users see it: who answered, on each of two machines</text>\n"
    );
    legend(&mut svg);
    axis(&mut svg, seconds, bottom);
    for (number, series) in all.iter().enumerate() {
        row(&mut svg, series, TOP + ROW * float(number), seconds);
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    let entries = [
        (OLD, "answered by the old release"),
        (NEW, "by the new release"),
        (FAILED, "failed"),
        (MIXED, "mixed window"),
    ];
    let mut x = 16.0;
    for (colour, text) in entries {
        add(
            svg,
            &format!("<rect x=\"{x}\" y=\"44\" width=\"13\" height=\"13\" fill=\"{colour}\"/>"),
        );
        x += 19.0;
        text_at(svg, (x, 55.0), "", text);
        x += 24.0 + 7.0 * float(text.len());
    }
    x += 12.0;
    let text = "height: share of the traffic; a full lane is all";
    text_at(svg, (x, 55.0), &format!("fill=\"{FAINT}\""), text);
}

fn axis(svg: &mut String, seconds: u64, bottom: f64) {
    for second in 0..=seconds {
        let x = at(second * 1_000_000_000, seconds);
        add(
            svg,
            &format!(
                "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"#e3e7ec\"/>",
                TOP - 8.0
            ),
        );
        let style = format!("text-anchor=\"middle\" fill=\"{FAINT}\" font-size=\"12\"");
        text_at(svg, (x, bottom + 16.0), &style, &second.to_string());
    }
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    let style = format!("text-anchor=\"middle\" fill=\"{FAINT}\" font-size=\"12\"");
    let text = "seconds since the command to deploy; the new release takes 2 s to start";
    text_at(svg, (middle, bottom + 34.0), &style, text);
}

fn row(svg: &mut String, series: &Series, top: f64, seconds: u64) {
    let middle = top + LANE + LANE_GAP / 2.0;
    let name = series.way.name();
    text_at(svg, (16.0, middle + 4.0), "font-weight=\"600\"", name);
    mixed_window(svg, series, top, seconds);
    for (machine, letter) in ["A", "B"].into_iter().enumerate() {
        let y = top + float(machine) * (LANE + LANE_GAP);
        let style = format!("text-anchor=\"end\" fill=\"{FAINT}\" font-size=\"12\"");
        text_at(svg, (LEFT - 8.0, y + LANE / 2.0 + 4.0), &style, letter);
        let bins = bins(series, machine);
        lane(svg, &bins, y, seconds);
        let x = LEFT;
        let width = WIDTH - RIGHT - LEFT;
        let y = y + LANE;
        add(
            svg,
            &format!(
                "<line x1=\"{x}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#c3cad3\"/>",
                x + width
            ),
        );
    }
    let shown = &series.shown.figures;
    let x = WIDTH - RIGHT + 14.0;
    let lines = [
        format!("{:.0} failed", shown.failed),
        format!("{:.0} ms outage", shown.outage_ms),
        format!("{:.0} ms mixed", shown.mixed_window_ms),
        format!("done after {:.1} s", shown.duration_ms / 1e3),
    ];
    for (number, line) in lines.iter().enumerate() {
        let bad = number < 3 && !line.starts_with("0 ");
        let style = match bad {
            true => format!("fill=\"{FAILED}\" font-size=\"12\""),
            false => format!("fill=\"{INK}\" font-size=\"12\""),
        };
        text_at(svg, (x, top + 12.0 + 16.0 * float(number)), &style, line);
    }
}

/// Behind both machines: from the first answer of the new release to the last stale request.
fn mixed_window(svg: &mut String, series: &Series, top: f64, seconds: u64) {
    let shown = &series.shown;
    let new = shown
        .samples
        .iter()
        .filter(|s| s.result.as_ref() == Ok(&shown.span.new));
    let Some(first) = new.map(|sample| sample.received_ns).min() else {
        return;
    };
    let x = at(first.saturating_sub(shown.span.began_ns), seconds);
    let scale = (WIDTH - RIGHT - LEFT) / (millis(seconds * 1_000_000_000));
    let width = shown.figures.mixed_window_ms * scale;
    let (y, height) = (top - 5.0, 2.0 * LANE + LANE_GAP + 10.0);
    add(
        svg,
        &format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{MIXED}\"/>"
        ),
    );
}

/// The three kinds, each on top of the one before.
fn lane(svg: &mut String, bins: &[Bin], top: f64, seconds: u64) {
    let full = f64::from(RATE) * millis(BIN_NS) / 1e3;
    let kinds = [OLD, NEW, FAILED].into_iter().enumerate();
    for (kind, colour) in kinds {
        let upper = |bin: &Bin| bin.stacked()[kind + 1];
        let lower = |bin: &Bin| bin.stacked()[kind];
        let y = |count: u32| top + LANE * (1.0 - (f64::from(count) / full).min(1.0));
        let mut path = String::new();
        for (number, bin) in bins.iter().enumerate().filter(|(_, b)| upper(b) > lower(b)) {
            let (left, right) = (step(number, seconds), step(number + 1, seconds));
            let (high, low) = (y(upper(bin)), y(lower(bin)));
            // Writing to a string cannot fail.
            let _ = write!(path, "M{left:.1} {low:.1}V{high:.1}H{right:.1}V{low:.1}z");
        }
        if !path.is_empty() {
            add(svg, &format!("<path fill=\"{colour}\" d=\"{path}\"/>"));
        }
    }
}

fn bins(series: &Series, machine: usize) -> Vec<Bin> {
    let span = &series.shown.span;
    let count = (span.ended_ns - span.began_ns) / BIN_NS;
    let mut bins = vec![Bin::default(); usize::try_from(count).unwrap_or(0)];
    let own = |sample: &&Sample| sample.instance == machine && span.has(sample);
    for sample in series.shown.samples.iter().filter(own) {
        let number = (sample.sent_ns - span.began_ns) / BIN_NS;
        // What is left over at the end is no whole step.
        let Some(bin) = usize::try_from(number).ok().and_then(|n| bins.get_mut(n)) else {
            continue;
        };
        match &sample.result {
            Ok(by) if *by == span.new => bin.new += 1,
            Ok(_) => bin.old += 1,
            Err(_) => bin.failed += 1,
        }
    }
    bins
}

fn step(number: usize, seconds: u64) -> f64 {
    at(number as u64 * BIN_NS, seconds)
}

/// Where a time is.
fn at(nanos: u64, seconds: u64) -> f64 {
    let share = millis(nanos) / millis(seconds * 1_000_000_000);
    LEFT + (WIDTH - RIGHT - LEFT) * share
}

fn text_at(svg: &mut String, (x, y): (f64, f64), style: &str, text: &str) {
    add(
        svg,
        &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>"),
    );
}

fn add(svg: &mut String, element: &str) {
    svg.push_str(element);
    svg.push('\n');
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a picture is a few thousand wide"
)]
fn float(number: usize) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a picture is a few seconds long"
)]
fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::super::Shown;
    use super::super::figures::{Figures, Span};
    use super::super::subject::Way;
    use super::*;
    use greenlight::load::RequestError;

    #[test]
    fn every_request_is_drawn_at_its_machine_in_its_step_and_by_who_answered() {
        let span = Span {
            began_ns: 1_000,
            ended_ns: 1_000 + 3 * BIN_NS,
            old: "old".to_owned(),
            new: "new".to_owned(),
            ..Span::default()
        };
        let sample = |instance, step: u64, by: Result<&str, RequestError>| Sample {
            instance,
            due_ns: 1_000 + step * BIN_NS,
            sent_ns: 1_000 + step * BIN_NS,
            received_ns: 2_000 + step * BIN_NS,
            key: None,
            result: by.map(ToOwned::to_owned),
        };
        let samples = vec![
            sample(0, 0, Ok("old")),
            sample(0, 1, Err(RequestError::Status(502))),
            sample(0, 2, Ok("new")),
            sample(1, 2, Ok("old")),
        ];
        let series = Series {
            way: Way::Recreate,
            rounds: Vec::new(),
            shown: Shown {
                figures: Figures::of(&samples, &span),
                span,
                samples,
            },
        };

        let bin = |old, new, failed| Bin { old, new, failed };
        assert_eq!(bins(&series, 0), [bin(1, 0, 0), bin(0, 0, 1), bin(0, 1, 0)]);
        assert_eq!(bins(&series, 1)[2], bin(1, 0, 0));
        let svg = draw(&[series]);
        assert!(svg.ends_with("</svg>\n") && svg.contains(FAILED), "{svg}");
    }
}
