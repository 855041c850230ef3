//! Crashes of coordinator and agents, a gate that is a process of its own, and messages from the
//! past.

use crate::story::{Gate, InFlight, Story, name};
use crate::{LONG, WARM, alone, everywhere, green, is_directive_to};
use greenlight_protocol::coordinator::{CoordinatorRecord, Ledger, Promotion, snapshot};
use greenlight_protocol::{
    AgentEvent, Color, Directive, DirectiveEnvelope, Epoch, Outcome, Report, Term, Token,
};
use std::time::Duration;

// ---- Crashes ----

#[test]
fn a_coordinator_that_crashes_after_any_record_of_a_promotion_converges_to_the_recorded_decision() {
    let start = Story::serving_v1(3).records.len(); // G2, G5
    for after in start + 1.. {
        let mut story = Story::serving_v1(3);
        story.crash_after = Some(after);
        let request = story.request(&[("shop", "v2")]);
        story
            .deploy(request)
            .expect("an idle fleet takes a request");
        story.pass(LONG);
        if story.coordinator.is_some() {
            assert!(after > start + 5, "the sequence was cut short");
            return;
        }

        story.crash_after = None;
        story.restart_coordinator();
        story.pass(LONG);

        let committed = story.records[..after].contains(&CoordinatorRecord::Committed(Epoch(2)));
        let begun = story.records[..after].iter().any(
            |r| matches!(r, CoordinatorRecord::CutOverStarted(b) if b.cut_over.epoch == Epoch(2)),
        );
        // What was only accepted is begun; what was begun and not committed is aborted.
        let expected = if committed || !begun { "v2" } else { "v1" };
        assert_eq!(story.served("shop"), everywhere(expected), "after {after}");
        assert_eq!(story.running(), alone(expected), "after {after}");
        assert!(story.outcome().is_some(), "after {after}");
    }
}

#[test]
fn a_coordinator_that_crashes_after_any_record_of_a_rollback_still_ends_the_deployment() {
    let start = Story::serving_v1(3).records.len(); // G2, G5
    for after in start + 1.. {
        let mut story = Story::serving_v1(3);
        story.crash_after = Some(after);
        let request = story.request(&[("shop", "v2")]);
        story
            .deploy(request)
            .expect("an idle fleet takes a request");
        story.run();
        if story.coordinator.is_some() {
            story.kill(&name(2), "v2");
            story.run();
        }
        if story.coordinator.is_some() {
            assert!(after > start + 9, "the sequence was cut short");
            return;
        }

        story.crash_after = None;
        story.restart_coordinator();
        story.pass(LONG);

        let served = story.served("shop");
        assert!(
            served == everywhere("v1") || served == everywhere("v2"),
            "after {after}: {served:?}"
        );
        assert!(story.outcome().is_some(), "after {after}");
        assert!(
            story.running().iter().all(|r| r.len() == 1),
            "after {after}"
        );
    }
}

#[test]
fn an_agent_that_restarts_while_armed_comes_back_held_and_aborts_the_cut_over() {
    let mut story = Story::serving_v1(3); // G1
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.phase() == "holding");

    story.crash_agent(&name(2));
    story.restart_agent(&name(2));
    assert_eq!(story.machine(&name(2)).gate("shop"), Gate::Held);
    story.pass(LONG);

    assert!(matches!(story.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn an_agent_that_restarts_after_its_acknowledgement_switches_once_its_new_release_is_checked() {
    let mut story = Story::serving_v1(3); // G1, G4
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.phase() == "switching");

    story.crash_agent(&name(2));
    story.restart_agent(&name(2));
    story.pass(WARM);

    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
    assert_eq!(story.served("shop"), everywhere("v2"));
}

#[test]
fn peers_tell_each_other_the_commit_when_the_coordinator_is_gone() {
    let mut story = Story::serving_v1(3); // G2
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.phase() == "switching");
    story
        .in_flight
        .retain(|in_flight| in_flight.directed_to().is_none_or(|to| to == name(1)));
    story.crash_coordinator();

    story.pass(Duration::from_secs(1));

    assert_eq!(story.served("shop"), everywhere("v2"));
}

#[test]
fn peers_release_each_other_when_one_of_them_never_held() {
    let mut story = Story::serving_v1(3); // G2, G3
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.phase() == "holding");
    story
        .in_flight
        .retain(|message| !is_directive_to(message, 3));
    story.crash_coordinator();

    story.pass(Duration::from_secs(1));

    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
    story.restart_coordinator();
    story.pass(LONG);
    assert!(matches!(story.outcome(), Some(Outcome::Aborted { .. })));
}

// ---- The gate as a process of its own ----

#[test]
fn a_live_application_is_not_started_again_before_its_gate_has_said_that_it_is_parked() {
    let mut story = Story::serving_v1(3); // G4
    let starts = story.machine(&name(1)).starts;

    story.machine(&name(1)).gate_is_away = true;
    story.kill(&name(1), "v1");
    story.pass(Duration::from_secs(30));

    assert_eq!(story.machine(&name(1)).starts, starts);
    story.machine(&name(1)).gate_is_away = false;
    story.pass(Duration::from_secs(5));
    assert_eq!(story.machine(&name(1)).starts, starts + 1);
    assert_eq!(story.served("shop"), everywhere("v1"));
}

#[test]
fn nothing_is_started_beside_a_new_release_that_died_before_its_switch_until_the_gate_is_parked() {
    let mut story = Story::serving_v1(3); // G4
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.phase() == "switching");

    story.crash_agent(&name(1));
    let starts = story.machine(&name(1)).starts;
    story.machine(&name(1)).gate_is_away = true;
    story.kill(&name(1), "v1");
    story.kill(&name(1), "v2");
    story.restart_agent(&name(1));
    story.pass(Duration::from_secs(30));

    // The gate may come back open to the old release, as it was before the hold.
    assert_eq!(story.phase(), "preparing");
    assert_eq!(story.machine(&name(1)).starts, starts);
    story.machine(&name(1)).gate_is_away = false;
    story.pass(LONG);
    assert!(matches!(story.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
}

#[test]
fn a_gate_that_was_away_when_the_new_release_sickened_at_its_switch_is_parked_when_it_is_back() {
    let mut story = Story::serving_v1(3); // G1, G4
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.phase() == "switching");
    let incarnation = story.machine(&name(1)).slots.get(&green());
    let incarnation = incarnation.expect("it runs there").incarnation;
    story.machine(&name(1)).gate_is_away = true;
    story.tell(
        &name(1),
        AgentEvent::SlotUnhealthy {
            slot: green(),
            incarnation,
            reason: "it is sick".to_owned(),
        },
    );
    story.run_until(|w| w.phase() != "switching");

    // What is not synced is lost: it leads to where it led before the hold.
    let machine = story.machine(&name(1));
    machine.gate_is_away = false;
    machine.gate_comes_back_open_to("shop", Color::Blue);
    story.tell(&name(1), AgentEvent::GateConnected);

    assert_eq!(story.machine(&name(1)).gate("shop"), Gate::Parked);
    story.pass(LONG);
    assert!(matches!(story.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
}

#[test]
fn requests_of_an_application_that_dies_under_a_hold_are_parked_past_the_hold() {
    let mut story = Story::serving_v1(3); // G4
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    assert!(story.run_until(|w| w.machines[&name(1)].holds == 2));

    story.crash_coordinator();
    story.kill(&name(1), "v1");
    story.run();

    assert_eq!(story.machine(&name(1)).gate("shop"), Gate::Parked);
}

#[test]
fn a_hold_that_the_gate_refuses_aborts_the_cut_over_and_is_refused_for_good() {
    let mut story = Story::serving_v1(3); // G2
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    assert!(story.run_until(|w| w.phase() == "holding"));

    // The gate has closed, and the answer to the hold says that it could not be completed.
    assert!(story.run_until(|w| w.machines[&name(1)].holds == 2));
    story.crash_coordinator();
    let reason = "another order came".to_owned();
    let epoch = Epoch(2);
    story.tell(&name(1), AgentEvent::GateRefused { epoch, reason });
    story.run();

    let gate = story.machine(&name(1)).gate("shop");
    assert_eq!(gate, Gate::Open(Color::Blue));
    story.restart_coordinator();
    story.pass(WARM);
    assert!(matches!(story.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn a_front_that_keeps_its_configuration_at_the_switch_takes_the_fleet_back() {
    let mut story = Story::serving_v1(3); // G2
    story.machine(&name(2)).front_is_stubborn = true;

    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(LONG);

    let Some(Outcome::RolledBack { reason }) = story.outcome() else {
        panic!("rolled back, not {:?}", story.outcome());
    };
    assert!(
        reason.contains("`i2`") && reason.contains("kept its configuration"),
        "{reason}"
    );
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn a_failed_switch_is_told_again_and_not_called_a_success_when_its_report_was_lost() {
    let mut story = Story::serving_v1(3);
    story.machine(&name(2)).front_is_stubborn = true;
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    let failed = |in_flight: &InFlight| {
        let report = in_flight.report();
        report.is_some_and(|(_, r)| matches!(r.report, Report::SwitchFailed { .. }))
    };
    assert!(story.run_until(|w| w.in_flight.iter().any(failed)));

    story.in_flight.retain(|in_flight| !failed(in_flight));
    story.pass(LONG);

    assert!(matches!(story.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
}

#[test]
fn a_service_that_takes_no_part_is_opened_while_the_cut_over_is_undecided() {
    let mut story = Story::new(3); // G3
    let request = story.request(&[("shop", "v1"), ("mail", "m1")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(LONG);
    story.kill(&name(1), "m1");
    story.run();
    let mut request = story.request(&[("shop", "v2")]);
    request.policy.max_hold = Duration::from_secs(10);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    let all_hold = |w: &Story| w.machines.values().all(|machine| machine.holds == 2);
    assert!(story.run_until(all_hold));
    story.crash_coordinator();

    assert_eq!(story.machine(&name(1)).gate("mail"), Gate::Parked);
    story.pass(Duration::from_secs(3));

    let machine = story.machine(&name(1));
    assert!(matches!(machine.gate("mail"), Gate::Open(_)));
    assert_eq!(machine.gate("shop"), Gate::Held);
}

// ---- Fencing ----

#[test]
fn a_directive_from_an_older_term_changes_nothing() {
    let mut story = Story::serving_v1(3); // G6
    story.crash_coordinator();
    story.restart_coordinator();
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.phase() == "holding");
    story.in_flight.clear();
    let agent = story.machine(&name(1)).agent.clone();

    for directive in [
        Directive::Hold,
        Directive::Switch,
        Directive::Abort,
        Directive::Retire,
    ] {
        let token = Token {
            term: Term(1),
            epoch: Epoch(2),
        };
        let envelope = DirectiveEnvelope { token, directive };
        story.tell(&name(1), AgentEvent::Directed(envelope));
    }

    assert_eq!(story.machine(&name(1)).agent, agent);
    assert_eq!(story.machine(&name(1)).holds, 1, "only the first cut-over");
}

#[test]
fn a_prepare_from_an_older_epoch_changes_nothing() {
    let mut story = Story::serving_v1(3); // G6
    story.machine(&name(2)).broken.insert("v2".to_owned());
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    let late: Vec<_> = story
        .in_flight
        .iter()
        .filter(|message| is_directive_to(message, 3))
        .cloned()
        .collect();
    assert!(!late.is_empty());
    story.deaf = Some(name(3));
    story.pass(Duration::from_secs(11));
    story.deaf = None;
    let mut request = story.request(&[("shop", "v3")]);
    request.promotion = Promotion::Manual;
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run();
    assert_eq!(story.phase(), "ready");
    let agent = story.machine(&name(3)).agent.clone();

    story.in_flight.extend(late);
    story.run();

    assert_eq!(story.machine(&name(3)).agent, agent);
    assert_eq!(story.phase(), "ready");
}

#[test]
fn a_vote_that_was_given_to_an_earlier_term_does_not_count() {
    let mut story = Story::serving_v1(3); // G6
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.phase() == "holding");
    let hold = |in_flight: &InFlight| {
        in_flight
            .report()
            .is_some_and(|(_, r)| r.token.epoch == Epoch(2))
    };
    story.run_until(|w| w.in_flight.iter().filter(|l| hold(l)).count() == 3);
    let votes: Vec<_> = story
        .in_flight
        .iter()
        .filter(|l| hold(l))
        .cloned()
        .collect();

    story.crash_coordinator();
    story.restart_coordinator();
    story.in_flight.extend(votes);
    story.pass(LONG);

    assert!(matches!(story.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
}

#[test]
fn a_journal_that_was_shortened_anywhere_means_the_same() {
    let mut story = Story::serving_v1(2);
    for version in ["v2", "v3"] {
        let request = story.request(&[("shop", version)]);
        story
            .deploy(request)
            .expect("an idle fleet takes a request");
        story.run();
        // Gone back from, and then as if nothing had been.
        story.kill(&name(1), version);
        story.pass(LONG);
    }
    let all = &story.records;
    for length in 1..=all.len() {
        let records = &all[..length];
        for deployments in 0..4 {
            let Some((count, first)) = snapshot(records, deployments) else {
                continue;
            };
            let shorter = [&[first], &records[count..]].concat();
            assert!(shorter.len() < length);
            assert_eq!(Ledger::replay(&shorter), Ledger::replay(records));
            let accepted = |records: &[CoordinatorRecord]| {
                let accepted = |record: &&_| matches!(record, CoordinatorRecord::Accepted(_));
                records.iter().filter(accepted).count()
            };
            assert_eq!(accepted(&shorter), deployments.min(accepted(records)));
        }
    }
    assert_eq!(snapshot(all, 0).map(|(count, _)| count), Some(all.len()));
    assert_eq!(snapshot(all, 99), None);
}
