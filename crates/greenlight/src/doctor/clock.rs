//! The clocks: receipts and histories are read by them; nothing is decided by them.

use greenlight_link::doctor::Finding;

/// Past this, times of several machines cannot be read together.
const FAR_MS: i64 = 500;
/// One exchange with an instance: its clock when the question came and when the answer left,
/// between the requester's clock before and after. All in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockExchange {
    pub(super) asked: u64,
    pub(super) received: u64,
    pub(super) answered: u64,
    pub(super) heard: u64,
}

impl ClockExchange {
    /// How far the other clock is ahead, and how wrong that may be: half of the round trip.
    pub(super) fn offset(self) -> (i64, u64) {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let there = signed(self.received) - signed(self.asked);
        let back = signed(self.answered) - signed(self.heard);
        let trip = (self.heard.saturating_sub(self.asked))
            .saturating_sub(self.answered.saturating_sub(self.received));
        (i64::midpoint(there, back), trip / 2)
    }

    /// The same as a finding.
    pub(super) fn finding(self) -> Finding {
        let (offset, error) = self.offset();
        let found = format!("{offset} ms from the server's, give or take {error} ms");
        let sure = offset.saturating_abs() - i64::try_from(error).unwrap_or(i64::MAX);
        match sure > FAR_MS {
            false => Finding::ok("clock offset", found),
            true => Finding::problem(
                "clock offset",
                found,
                "set the clocks, with chrony or systemd-timesyncd: receipts cannot be read",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_link::doctor::Level;

    #[test]
    fn a_slow_exchange_is_not_taken_for_a_wrong_clock() {
        let slow = ClockExchange {
            asked: 1_000,
            received: 3_000,
            answered: 3_500,
            heard: 3_500,
        };
        assert_eq!(slow.offset(), (1_000, 1_000));
        assert_eq!(slow.finding().level, Level::Ok);
        let wrong = ClockExchange {
            asked: 10_000,
            received: 5_001,
            answered: 5_002,
            heard: 10_003,
        };
        assert_eq!(wrong.offset(), (-5_000, 1));
        assert_eq!(wrong.finding().level, Level::Problem);
    }
}
