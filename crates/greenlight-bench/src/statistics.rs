//! Medians, spreads and ratios of a few measured rounds. Pure.
//!
//! The machine drifts from minute to minute, so nothing is compared across rounds: a ratio is
//! taken within each round, and what is reported is the median of the ratios and their spread.

use serde::Serialize;

/// What a few measurements of the same thing come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// How many there were.
    pub(crate) count: usize,
    /// The smallest.
    pub(crate) min: f64,
    /// A quarter is below this.
    pub(crate) lower_quartile: f64,
    /// Half is below this.
    pub(crate) median: f64,
    /// Three quarters are below this.
    pub(crate) upper_quartile: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Summary {
    /// Summarises; `None` of nothing. Values that are not numbers are left out.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            count: sorted.len(),
            min: *sorted.first()?,
            lower_quartile: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            upper_quartile: quantile(&sorted, 0.75),
            max: *sorted.last()?,
        })
    }

    /// `median (lower quartile-upper quartile)`.
    pub(crate) fn spread(&self, decimals: usize) -> String {
        format!(
            "{:.decimals$} ({:.decimals$}-{:.decimals$})",
            self.median, self.lower_quartile, self.upper_quartile
        )
    }
}

/// A quantile of sorted values, between two of them by straight line.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the index is between zero and a handful of rounds"
)]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * place.fract()
}

/// The ratio of two measurements of each round. Rounds in which one of them failed are left out.
pub(crate) fn ratios(rounds: &[Option<f64>], against: &[Option<f64>]) -> Vec<f64> {
    let pairs = rounds.iter().zip(against);
    let both = pairs.filter_map(|(one, other)| Some(((*one)?, (*other)?)));
    both.filter(|(_, other)| *other > 0.0)
        .map(|(one, other)| one / other)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_the_median_and_the_quartiles() {
        let summary = Summary::of([4.0, 1.0, 2.0, 3.0, f64::NAN]).expect("four values");
        let expected = Summary {
            count: 4,
            min: 1.0,
            lower_quartile: 1.75,
            median: 2.5,
            upper_quartile: 3.25,
            max: 4.0,
        };
        assert_eq!(summary, expected);
        assert_eq!(summary.spread(1), "2.5 (1.8-3.2)");
    }

    #[test]
    fn one_value_is_its_own_summary_and_nothing_has_none() {
        assert_eq!(Summary::of([7.0]).map(|s| s.median), Some(7.0));
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn a_ratio_is_taken_within_its_round_and_not_across() {
        let ours = [Some(10.0), None, Some(30.0), Some(5.0)];
        let theirs = [Some(20.0), Some(1.0), Some(30.0), Some(0.0)];
        assert_eq!(ratios(&ours, &theirs), [0.5, 1.0]);
    }
}
