//! Which directives G6 forbids to change anything.

use greenlight_protocol::{Agent, AgentEvent, Directive, DirectiveEnvelope, ParticipationView};

/// Whether G6 forbids the event to change anything: an older term; or, in the same term, an
/// older cut-over than the one at hand, unless it is a decision.
pub(crate) fn is_stale(agent: &Agent, event: &AgentEvent) -> bool {
    let AgentEvent::Directed(DirectiveEnvelope { token, directive }) = event else {
        return false;
    };
    if token.term != agent.term() {
        return token.term < agent.term();
    }
    let at_hand = match agent.status().participation {
        ParticipationView::Idle => agent.ledger().latest_decided(),
        ParticipationView::Preparing(epoch)
        | ParticipationView::Prepared(epoch)
        | ParticipationView::Armed(epoch) => epoch,
    };
    match directive {
        Directive::Prepare(_) | Directive::Arm | Directive::Hold => token.epoch < at_hand,
        Directive::Retire => token.epoch < agent.ledger().switched,
        Directive::CheckPeers(_)
        | Directive::BeforeSwitch
        | Directive::Switch
        | Directive::Abort
        | Directive::QueryStatus => false,
    }
}
