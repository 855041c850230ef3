//! What every front must do, as far as it claims: run against each.

use crate::stages::{Builtin, Memory, NginxReload, Stage};
use greenlight::front::{Acted, FrontError};
use greenlight_protocol::policy::Exclusive;
use greenlight_protocol::{
    Alignment, Color, Epoch, GateAction, HoldEvidence, OnUncertain, ServiceName, Slot,
    SwitchEvidence,
};
use std::time::Duration;

/// The service of every stage.
pub(crate) const SHOP: &str = "shop";
/// How long anything that is waited for may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long it is watched that nothing happens.
const A_WHILE: Duration = Duration::from_millis(100);

/// Runs the suite for a front.
macro_rules! conforms {
    ($front:ident, $stage:ty $(, $ignored:meta)?) => {
        mod $front {
            use super::*;

            conforms!(@ $stage, [$($ignored)?],
                an_opened_color_gets_the_requests,
                a_hold_keeps_what_comes_for_the_color_that_is_opened,
                opening_again_changes_nothing,
                nothing_reaches_a_parked_service,
                what_is_removed_is_refused_until_it_comes_back,
                a_drain_waits_for_what_is_in_flight_and_says_what_is_left,
                a_cut_over_leaves_the_evidence_that_the_front_claims,
                an_incarnation_lasts_as_long_as_the_front_runs,
                an_exclusive_hold_is_kept_or_refused,
            );
        }
    };
    (@ $stage:ty, $ignored:tt, $($test:ident),* $(,)?) => {
        $(conforms!(@one $stage, $ignored, $test);)*
    };
    (@one $stage:ty, [$($ignored:meta)?], $test:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$ignored])?
        async fn $test() {
            let stage = <$stage>::set().await;
            let played = tokio::time::timeout(PATIENCE, super::$test(stage));
            played.await.expect("it ends");
        }
    };
}

conforms!(fake, Memory);
conforms!(builtin, Builtin);
conforms!(nginx_reload, NginxReload, ignore = "needs nginx");

async fn an_opened_color_gets_the_requests(stage: impl Stage) {
    open(&stage, 1, Color::Blue).await;
    assert_eq!(stage.ask().await, Ok(Color::Blue));

    open(&stage, 2, Color::Green).await;
    assert_eq!(stage.ask().await, Ok(Color::Green));
}

async fn a_hold_keeps_what_comes_for_the_color_that_is_opened(stage: impl Stage) {
    open(&stage, 1, Color::Blue).await;

    let held = hold(&stage, 2, Exclusive::No).await.expect("a hold");

    assert_eq!(held.alignment, stage.alignment());
    assert!(held.held_at_ns > 0);
    match stage.alignment() {
        // G1: nothing that comes after the acknowledgement reaches the old color.
        Alignment::Gated => {
            let mut waiting = tokio::spawn(stage.ask());
            let early = tokio::time::timeout(A_WHILE, &mut waiting).await;
            assert!(early.is_err(), "{early:?}");
            open(&stage, 2, Color::Green).await;
            assert_eq!(waiting.await.expect("it does not panic"), Ok(Color::Green));
        }
        // It says that it does not hold, and does not.
        Alignment::Aligned => {
            assert_eq!(stage.ask().await, Ok(Color::Blue));
            open(&stage, 2, Color::Green).await;
            assert_eq!(stage.ask().await, Ok(Color::Green));
        }
    }
}

async fn opening_again_changes_nothing(stage: impl Stage) {
    open(&stage, 1, Color::Blue).await;
    hold(&stage, 2, Exclusive::No).await.expect("a hold");
    // As an abort does.
    open(&stage, 2, Color::Blue).await;
    open(&stage, 2, Color::Blue).await;

    assert_eq!(stage.ask().await, Ok(Color::Blue));
}

async fn nothing_reaches_a_parked_service(stage: impl Stage) {
    open(&stage, 1, Color::Blue).await;
    let park = GateAction::Park {
        epoch: Epoch(1),
        services: [ServiceName::from(SHOP)].into(),
    };

    let parked = stage.front().act(park).await.expect("it parks");

    assert!(matches!(parked, Acted::Parked));
    // G4
    match stage.alignment() {
        Alignment::Gated => {
            let mut waiting = tokio::spawn(stage.ask());
            let early = tokio::time::timeout(A_WHILE, &mut waiting).await;
            assert!(early.is_err(), "{early:?}");
            open(&stage, 1, Color::Blue).await;
            assert_eq!(waiting.await.expect("it does not panic"), Ok(Color::Blue));
        }
        Alignment::Aligned => {
            assert_eq!(stage.ask().await, Err(503));
            open(&stage, 1, Color::Blue).await;
            assert_eq!(stage.ask().await, Ok(Color::Blue));
        }
    }
}

async fn what_is_removed_is_refused_until_it_comes_back(stage: impl Stage) {
    open(&stage, 1, Color::Blue).await;
    hold(&stage, 2, Exclusive::No).await.expect("a hold");
    direct(&stage, 2, None).await;

    assert_eq!(stage.ask().await, Err(503));
    direct(&stage, 2, None).await;
    // Nothing is served, so nothing is held.
    hold(&stage, 3, Exclusive::No).await.expect("a hold");
    open(&stage, 3, Color::Blue).await;
    assert_eq!(stage.ask().await, Ok(Color::Blue));
}

async fn a_drain_waits_for_what_is_in_flight_and_says_what_is_left(stage: impl Stage) {
    open(&stage, 1, Color::Blue).await;
    let slow = tokio::spawn(stage.ask_slowly());
    stage.until_in_flight().await;
    open(&stage, 2, Color::Green).await;
    let blue = Slot {
        service: ServiceName::from(SHOP),
        color: Color::Blue,
    };

    // G7
    let left = stage.front().drain(blue.clone(), Duration::from_millis(50));
    let left = left.await.expect("it drains");
    assert_eq!((left.requests, left.streams, left.upgrades), (1, 0, 0));

    let drained = tokio::spawn(stage.front().drain(blue, PATIENCE));
    stage.finish();
    let left = drained
        .await
        .expect("it does not panic")
        .expect("it drains");
    assert_eq!((left.requests, left.streams, left.upgrades), (0, 0, 0));
    assert_eq!(slow.await.expect("it does not panic"), Ok(Color::Blue));
}

async fn a_cut_over_leaves_the_evidence_that_the_front_claims(stage: impl Stage) {
    open(&stage, 1, Color::Blue).await;
    stage.ask().await.expect("an answer");
    hold(&stage, 2, Exclusive::No).await.expect("a hold");
    let opened = open(&stage, 2, Color::Green).await;
    stage.ask().await.expect("an answer");

    let seen = stage.front().evidence(Epoch(2)).await.expect("evidence");

    assert!(opened.opened_at_ns > 0);
    match stage.alignment() {
        Alignment::Gated => {
            assert_eq!(opened.aligned, None);
            let seen = &seen.services[&ServiceName::from(SHOP)];
            let old = seen.last_admission_old_ns.expect("blue had a request");
            let held = seen.held_at_ns.expect("it was held");
            let new = seen.first_admission_new_ns.expect("green had a request");
            assert!(old <= held && held <= opened.opened_at_ns && opened.opened_at_ns <= new);
        }
        Alignment::Aligned => {
            assert!(opened.aligned.is_some());
            assert!(seen.services.is_empty(), "it counts nothing");
        }
    }
}

async fn an_incarnation_lasts_as_long_as_the_front_runs(mut stage: impl Stage) {
    let first = stage.front().incarnation().await.expect("it runs");
    open(&stage, 1, Color::Blue).await;
    assert_eq!(stage.front().incarnation().await.expect("it runs"), first);

    stage.restart().await;

    assert_ne!(stage.front().incarnation().await.expect("it runs"), first);
}

async fn an_exclusive_hold_is_kept_or_refused(stage: impl Stage) {
    open(&stage, 1, Color::Blue).await;

    let held = hold(&stage, 2, Exclusive::Yes).await;

    match stage.alignment() {
        Alignment::Gated => assert_eq!(held.expect("a hold").in_flight, 0),
        Alignment::Aligned => assert!(matches!(held, Err(FrontError::Refused(_)))),
    }
}

pub(crate) async fn open(stage: &impl Stage, epoch: u64, color: Color) -> SwitchEvidence {
    direct(stage, epoch, Some(color)).await
}

async fn direct(stage: &impl Stage, epoch: u64, to: Option<Color>) -> SwitchEvidence {
    let open = GateAction::Open {
        epoch: Epoch(epoch),
        colors: [(ServiceName::from(SHOP), to)].into(),
    };
    match stage.front().act(open).await.expect("it opens") {
        Acted::Opened(evidence) => evidence,
        other @ (Acted::Held(_) | Acted::Parked) => panic!("opened, not {other:?}"),
    }
}

async fn hold(
    stage: &impl Stage,
    epoch: u64,
    exclusive: Exclusive,
) -> Result<HoldEvidence, FrontError> {
    let hold = GateAction::Hold {
        epoch: Epoch(epoch),
        services: [ServiceName::from(SHOP)].into(),
        max_hold: PATIENCE,
        on_uncertain: OnUncertain::ServeOld,
        exclusive,
    };
    match stage.front().act(hold).await? {
        Acted::Held(evidence) => Ok(evidence),
        other @ (Acted::Opened(_) | Acted::Parked) => panic!("held, not {other:?}"),
    }
}
