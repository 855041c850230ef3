//! Notes when the agent read what it was told of a cut-over, for the receipt.
//!
//! An opening is evidence of nothing if the gate could have opened by itself. So the receipt needs
//! the moment at which the agent had read the decision, on the clock on which the gate opened.
//!
//! Deliberately absent: any use of these times by the agent. They are lost with its process, and
//! the receipt then says that they are missing.

use greenlight_link::Readings;
use greenlight_protocol::{AgentEvent, Directive, Epoch, PeerAnswer};
use std::collections::BTreeMap;

/// The latest cut-overs of which readings are kept.
const KEPT: usize = 32;

/// When the agent read what it was told of the latest cut-overs.
pub(super) struct ReadingLog {
    since_ns: u64,
    by_epoch: BTreeMap<Epoch, Readings>,
}

impl ReadingLog {
    /// Begins now.
    pub(super) fn new(now_ns: u64) -> Self {
        Self {
            since_ns: now_ns,
            by_epoch: BTreeMap::new(),
        }
    }

    /// An event is about to be handled.
    pub(super) fn note(&mut self, event: &AgentEvent, now_ns: u64) {
        if let AgentEvent::Directed(envelope) = event {
            let epoch = envelope.token.epoch;
            if envelope.directive == Directive::Hold {
                self.of_epoch(epoch).hold_ns.get_or_insert(now_ns);
            } else if envelope.directive == Directive::Switch {
                self.committed(epoch, now_ns);
            }
        } else if let AgentEvent::PeerAnswered { epoch, answer } = event
            && *answer == PeerAnswer::Committed
        {
            self.committed(*epoch, now_ns);
        }
    }

    /// What was read of a cut-over.
    pub(super) fn get(&self, epoch: Epoch) -> Readings {
        let nothing = Readings {
            since_ns: self.since_ns,
            ..Readings::default()
        };
        self.by_epoch.get(&epoch).copied().unwrap_or(nothing)
    }

    fn committed(&mut self, epoch: Epoch, now_ns: u64) {
        self.of_epoch(epoch).commit_ns.get_or_insert(now_ns);
    }

    fn of_epoch(&mut self, epoch: Epoch) -> &mut Readings {
        let nothing = self.get(epoch);
        while self.by_epoch.len() >= KEPT && !self.by_epoch.contains_key(&epoch) {
            self.by_epoch.pop_first();
        }
        self.by_epoch.entry(epoch).or_insert(nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_protocol::{DirectiveEnvelope, Term, Token};

    #[test]
    fn the_first_reading_counts_however_often_a_directive_is_repeated() {
        let mut log = ReadingLog::new(10);
        log.note(&directed(3, Directive::Hold), 20);
        log.note(&directed(3, Directive::Hold), 30);
        assert_eq!(log.get(Epoch(3)).commit_ns, None);
        log.note(&directed(3, Directive::Switch), 40);
        log.note(&directed(3, Directive::Switch), 50);

        let read = Readings {
            since_ns: 10,
            hold_ns: Some(20),
            commit_ns: Some(40),
        };
        assert_eq!(log.get(Epoch(3)), read);
    }

    #[test]
    fn a_peer_that_knows_the_commit_is_read_like_the_server() {
        let mut log = ReadingLog::new(10);
        for (answer, at) in [(PeerAnswer::Unknown, 20), (PeerAnswer::Committed, 30)] {
            let epoch = Epoch(4);
            log.note(&AgentEvent::PeerAnswered { epoch, answer }, at);
        }
        assert_eq!(log.get(Epoch(4)).commit_ns, Some(30));
    }

    #[test]
    fn readings_of_old_cut_overs_are_forgotten() {
        let mut log = ReadingLog::new(10);
        for epoch in 1..=100 {
            log.note(&directed(epoch, Directive::Hold), epoch);
        }
        assert_eq!(log.by_epoch.len(), KEPT);
        assert_eq!(log.get(Epoch(100)).hold_ns, Some(100));
        assert_eq!(log.get(Epoch(1)).hold_ns, None);
    }

    fn directed(epoch: u64, directive: Directive) -> AgentEvent {
        let token = Token {
            term: Term(1),
            epoch: Epoch(epoch),
        };
        AgentEvent::Directed(DirectiveEnvelope { token, directive })
    }
}
