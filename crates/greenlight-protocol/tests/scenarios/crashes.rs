//! Crashes of coordinator and agents, a gate that is a process of its own, and messages from the
//! past.

use crate::world::{Gate, Message, World, name};
use crate::{LONG, WARM, alone, everywhere, green, is_directive_to};
use greenlight_protocol::coordinator::{CoordinatorRecord, Ledger, Promotion, snapshot};
use greenlight_protocol::{
    AgentEvent, Color, Directive, DirectiveEnvelope, Epoch, Outcome, Report, Term, Token,
};
use std::time::Duration;

// ---- Crashes ----

#[test]
fn a_coordinator_that_crashes_after_any_record_of_a_promotion_converges_to_the_recorded_decision() {
    let start = World::serving_v1(3).records.len(); // G2, G5
    for after in start + 1.. {
        let mut world = World::serving_v1(3);
        world.crash_after = Some(after);
        let request = world.request(&[("shop", "v2")]);
        world
            .deploy(request)
            .expect("an idle fleet takes a request");
        world.pass(LONG);
        if world.coordinator.is_some() {
            assert!(after > start + 5, "the sequence was cut short");
            return;
        }

        world.crash_after = None;
        world.restart_coordinator();
        world.pass(LONG);

        let committed = world.records[..after].contains(&CoordinatorRecord::Committed(Epoch(2)));
        let begun = world.records[..after].iter().any(
            |r| matches!(r, CoordinatorRecord::CutOverStarted(b) if b.cut_over.epoch == Epoch(2)),
        );
        // What was only accepted is begun; what was begun and not committed is aborted.
        let expected = if committed || !begun { "v2" } else { "v1" };
        assert_eq!(world.served("shop"), everywhere(expected), "after {after}");
        assert_eq!(world.running(), alone(expected), "after {after}");
        assert!(world.outcome().is_some(), "after {after}");
    }
}

#[test]
fn a_coordinator_that_crashes_after_any_record_of_a_rollback_still_ends_the_deployment() {
    let start = World::serving_v1(3).records.len(); // G2, G5
    for after in start + 1.. {
        let mut world = World::serving_v1(3);
        world.crash_after = Some(after);
        let request = world.request(&[("shop", "v2")]);
        world
            .deploy(request)
            .expect("an idle fleet takes a request");
        world.run();
        if world.coordinator.is_some() {
            world.kill(&name(2), "v2");
            world.run();
        }
        if world.coordinator.is_some() {
            assert!(after > start + 9, "the sequence was cut short");
            return;
        }

        world.crash_after = None;
        world.restart_coordinator();
        world.pass(LONG);

        let served = world.served("shop");
        assert!(
            served == everywhere("v1") || served == everywhere("v2"),
            "after {after}: {served:?}"
        );
        assert!(world.outcome().is_some(), "after {after}");
        assert!(
            world.running().iter().all(|r| r.len() == 1),
            "after {after}"
        );
    }
}

#[test]
fn an_agent_that_restarts_while_armed_comes_back_held_and_aborts_the_cut_over() {
    let mut world = World::serving_v1(3); // G1
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.phase() == "holding");

    world.crash_agent(&name(2));
    world.restart_agent(&name(2));
    assert_eq!(world.machine(&name(2)).gate("shop"), Gate::Held);
    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn an_agent_that_restarts_after_its_acknowledgement_switches_once_its_new_release_is_checked() {
    let mut world = World::serving_v1(3); // G1, G4
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.phase() == "switching");

    world.crash_agent(&name(2));
    world.restart_agent(&name(2));
    world.pass(WARM);

    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.served("shop"), everywhere("v2"));
}

#[test]
fn peers_tell_each_other_the_commit_when_the_coordinator_is_gone() {
    let mut world = World::serving_v1(3); // G2
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.phase() == "switching");
    world
        .in_flight
        .retain(|message| !matches!(message, Message::Directive(to, _) if *to != name(1)));
    world.crash_coordinator();

    world.pass(Duration::from_secs(1));

    assert_eq!(world.served("shop"), everywhere("v2"));
}

#[test]
fn peers_release_each_other_when_one_of_them_never_held() {
    let mut world = World::serving_v1(3); // G2, G3
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.phase() == "holding");
    world
        .in_flight
        .retain(|message| !is_directive_to(message, 3));
    world.crash_coordinator();

    world.pass(Duration::from_secs(1));

    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
    world.restart_coordinator();
    world.pass(LONG);
    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
}

// ---- The gate as a process of its own ----

#[test]
fn a_live_application_is_not_started_again_before_its_gate_has_said_that_it_is_parked() {
    let mut world = World::serving_v1(3); // G4
    let starts = world.machine(&name(1)).starts;

    world.machine(&name(1)).gate_is_away = true;
    world.kill(&name(1), "v1");
    world.pass(Duration::from_secs(30));

    assert_eq!(world.machine(&name(1)).starts, starts);
    world.machine(&name(1)).gate_is_away = false;
    world.pass(Duration::from_secs(5));
    assert_eq!(world.machine(&name(1)).starts, starts + 1);
    assert_eq!(world.served("shop"), everywhere("v1"));
}

#[test]
fn nothing_is_started_beside_a_new_release_that_died_before_its_switch_until_the_gate_is_parked() {
    let mut world = World::serving_v1(3); // G4
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.phase() == "switching");

    world.crash_agent(&name(1));
    let starts = world.machine(&name(1)).starts;
    world.machine(&name(1)).gate_is_away = true;
    world.kill(&name(1), "v1");
    world.kill(&name(1), "v2");
    world.restart_agent(&name(1));
    world.pass(Duration::from_secs(30));

    // The gate may come back open to the old release, as it was before the hold.
    assert_eq!(world.phase(), "preparing");
    assert_eq!(world.machine(&name(1)).starts, starts);
    world.machine(&name(1)).gate_is_away = false;
    world.pass(LONG);
    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
}

#[test]
fn a_gate_that_was_away_when_the_new_release_sickened_at_its_switch_is_parked_when_it_is_back() {
    let mut world = World::serving_v1(3); // G1, G4
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.phase() == "switching");
    let incarnation = world.machine(&name(1)).apps[&green()].incarnation;
    world.machine(&name(1)).gate_is_away = true;
    world.tell(
        &name(1),
        AgentEvent::SlotUnhealthy {
            slot: green(),
            incarnation,
            reason: "it is sick".to_owned(),
        },
    );
    world.run_until(|w| w.phase() != "switching");

    // What is not synced is lost: it leads to where it led before the hold.
    let machine = world.machine(&name(1));
    machine.gate_is_away = false;
    machine.gate_comes_back_open_to("shop", Color::Blue);
    world.tell(&name(1), AgentEvent::GateConnected);

    assert_eq!(world.machine(&name(1)).gate("shop"), Gate::Parked);
    world.pass(LONG);
    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
}

#[test]
fn requests_of_an_application_that_dies_under_a_hold_are_parked_past_the_hold() {
    let mut world = World::serving_v1(3); // G4
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    assert!(world.run_until(|w| w.machines[&name(1)].holds == 2));

    world.crash_coordinator();
    world.kill(&name(1), "v1");
    world.run();

    assert_eq!(world.machine(&name(1)).gate("shop"), Gate::Parked);
}

#[test]
fn a_hold_that_the_gate_refuses_aborts_the_cut_over_and_is_refused_for_good() {
    let mut world = World::serving_v1(3); // G2
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    assert!(world.run_until(|w| w.phase() == "holding"));

    // The gate has closed, and the answer to the hold says that it could not be completed.
    assert!(world.run_until(|w| w.machines[&name(1)].holds == 2));
    world.crash_coordinator();
    let reason = "another order came".to_owned();
    let epoch = Epoch(2);
    world.tell(&name(1), AgentEvent::GateRefused { epoch, reason });
    world.run();

    let gate = world.machine(&name(1)).gate("shop");
    assert_eq!(gate, Gate::Open(Color::Blue));
    world.restart_coordinator();
    world.pass(WARM);
    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_front_that_keeps_its_configuration_at_the_switch_takes_the_fleet_back() {
    let mut world = World::serving_v1(3); // G2
    world.machine(&name(2)).front_is_stubborn = true;

    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(LONG);

    let Some(Outcome::RolledBack { reason }) = world.outcome() else {
        panic!("rolled back, not {:?}", world.outcome());
    };
    assert!(
        reason.contains("`i2`") && reason.contains("kept its configuration"),
        "{reason}"
    );
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_failed_switch_is_told_again_and_not_called_a_success_when_its_report_was_lost() {
    let mut world = World::serving_v1(3);
    world.machine(&name(2)).front_is_stubborn = true;
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    let failed = |message: &Message| {
        matches!(message, Message::Report(_, envelope)
            if matches!(envelope.report, Report::SwitchFailed { .. }))
    };
    assert!(world.run_until(|w| w.in_flight.iter().any(failed)));

    world.in_flight.retain(|message| !failed(message));
    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
}

#[test]
fn a_service_that_takes_no_part_is_opened_while_the_cut_over_is_undecided() {
    let mut world = World::new(3); // G3
    let request = world.request(&[("shop", "v1"), ("mail", "m1")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(LONG);
    world.kill(&name(1), "m1");
    world.run();
    let mut request = world.request(&[("shop", "v2")]);
    request.policy.max_hold = Duration::from_secs(10);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    let all_hold = |w: &World| w.machines.values().all(|machine| machine.holds == 2);
    assert!(world.run_until(all_hold));
    world.crash_coordinator();

    assert_eq!(world.machine(&name(1)).gate("mail"), Gate::Parked);
    world.pass(Duration::from_secs(3));

    let machine = world.machine(&name(1));
    assert!(matches!(machine.gate("mail"), Gate::Open(_)));
    assert_eq!(machine.gate("shop"), Gate::Held);
}

// ---- Fencing ----

#[test]
fn a_directive_from_an_older_term_changes_nothing() {
    let mut world = World::serving_v1(3); // G6
    world.crash_coordinator();
    world.restart_coordinator();
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.phase() == "holding");
    world.in_flight.clear();
    let agent = world.machine(&name(1)).agent.clone();

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
        world.tell(&name(1), AgentEvent::Directed(envelope));
    }

    assert_eq!(world.machine(&name(1)).agent, agent);
    assert_eq!(world.machine(&name(1)).holds, 1, "only the first cut-over");
}

#[test]
fn a_prepare_from_an_older_epoch_changes_nothing() {
    let mut world = World::serving_v1(3); // G6
    world.machine(&name(2)).broken.insert("v2".to_owned());
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    let late: Vec<_> = world
        .in_flight
        .iter()
        .filter(|message| is_directive_to(message, 3))
        .cloned()
        .collect();
    assert!(!late.is_empty());
    world.deaf = Some(name(3));
    world.pass(Duration::from_secs(11));
    world.deaf = None;
    let mut request = world.request(&[("shop", "v3")]);
    request.promotion = Promotion::Manual;
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run();
    assert_eq!(world.phase(), "ready");
    let agent = world.machine(&name(3)).agent.clone();

    world.in_flight.extend(late);
    world.run();

    assert_eq!(world.machine(&name(3)).agent, agent);
    assert_eq!(world.phase(), "ready");
}

#[test]
fn a_vote_that_was_given_to_an_earlier_term_does_not_count() {
    let mut world = World::serving_v1(3); // G6
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.phase() == "holding");
    let hold =
        |message: &Message| matches!(message, Message::Report(_, r) if r.token.epoch == Epoch(2));
    world.run_until(|w| w.in_flight.iter().filter(|l| hold(l)).count() == 3);
    let votes: Vec<_> = world
        .in_flight
        .iter()
        .filter(|l| hold(l))
        .cloned()
        .collect();

    world.crash_coordinator();
    world.restart_coordinator();
    world.in_flight.extend(votes);
    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
}

#[test]
fn a_journal_that_was_shortened_anywhere_means_the_same() {
    let mut world = World::serving_v1(2);
    for version in ["v2", "v3"] {
        let request = world.request(&[("shop", version)]);
        world
            .deploy(request)
            .expect("an idle fleet takes a request");
        world.run();
        // Gone back from, and then as if nothing had been.
        world.kill(&name(1), version);
        world.pass(LONG);
    }
    let all = &world.records;
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
