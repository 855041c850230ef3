//! What every front must do, as far as it claims: run against each.

use crate::test_fronts::{Builtin, Memory, NginxReload, TestFront};
use greenlight_agent::front::{Acted, FrontError};
use greenlight_protocol::policy::Exclusive;
use greenlight_protocol::{
    Alignment, Color, Epoch, GateAction, HoldEvidence, OnUncertain, ServiceName, Slot,
    SwitchEvidence,
};
use std::time::Duration;

/// The service of every test front.
pub(crate) const SHOP: &str = "shop";
/// How long anything that is waited for may take.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_mins(2);

/// How long it is watched that nothing happens.
const A_WHILE: Duration = Duration::from_millis(100);

/// Runs the suite for a front.
macro_rules! conforms {
    ($front:ident, $test_front:ty $(, $ignored:meta)?) => {
        mod $front {
            use super::*;

            conforms!(@ $test_front, [$($ignored)?],
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
    (@ $test_front:ty, $ignored:tt, $($test:ident),* $(,)?) => {
        $(conforms!(@one $test_front, $ignored, $test);)*
    };
    (@one $test_front:ty, [$($ignored:meta)?], $test:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$ignored])?
        async fn $test() {
            let test_front = <$test_front>::set().await;
            let played = tokio::time::timeout(TEST_TIMEOUT, super::$test(test_front));
            played.await.expect("it ends");
        }
    };
}

conforms!(fake, Memory);
conforms!(builtin, Builtin);
conforms!(nginx_reload, NginxReload, ignore = "needs nginx");

async fn an_opened_color_gets_the_requests(test_front: impl TestFront) {
    open(&test_front, 1, Color::Blue).await;
    assert_eq!(test_front.ask().await, Ok(Color::Blue));

    open(&test_front, 2, Color::Green).await;
    assert_eq!(test_front.ask().await, Ok(Color::Green));
}

async fn a_hold_keeps_what_comes_for_the_color_that_is_opened(test_front: impl TestFront) {
    open(&test_front, 1, Color::Blue).await;

    let held = hold(&test_front, 2, Exclusive::No).await.expect("a hold");

    assert_eq!(held.alignment, test_front.alignment());
    assert!(held.held_at_ns > 0);
    match test_front.alignment() {
        // G1: nothing that comes after the acknowledgement reaches the old color.
        Alignment::Gated => {
            let mut waiting = tokio::spawn(test_front.ask());
            let early = tokio::time::timeout(A_WHILE, &mut waiting).await;
            assert!(early.is_err(), "{early:?}");
            open(&test_front, 2, Color::Green).await;
            assert_eq!(waiting.await.expect("it does not panic"), Ok(Color::Green));
        }
        // It says that it does not hold, and does not.
        Alignment::Aligned => {
            assert_eq!(test_front.ask().await, Ok(Color::Blue));
            open(&test_front, 2, Color::Green).await;
            assert_eq!(test_front.ask().await, Ok(Color::Green));
        }
    }
}

async fn opening_again_changes_nothing(test_front: impl TestFront) {
    open(&test_front, 1, Color::Blue).await;
    hold(&test_front, 2, Exclusive::No).await.expect("a hold");
    // As an abort does.
    open(&test_front, 2, Color::Blue).await;
    open(&test_front, 2, Color::Blue).await;

    assert_eq!(test_front.ask().await, Ok(Color::Blue));
}

async fn nothing_reaches_a_parked_service(test_front: impl TestFront) {
    open(&test_front, 1, Color::Blue).await;
    let park = GateAction::Park {
        epoch: Epoch(1),
        services: [ServiceName::from(SHOP)].into(),
    };

    let parked = test_front.front().act(park).await.expect("it parks");

    assert!(matches!(parked, Acted::Parked));
    // G4
    match test_front.alignment() {
        Alignment::Gated => {
            let mut waiting = tokio::spawn(test_front.ask());
            let early = tokio::time::timeout(A_WHILE, &mut waiting).await;
            assert!(early.is_err(), "{early:?}");
            open(&test_front, 1, Color::Blue).await;
            assert_eq!(waiting.await.expect("it does not panic"), Ok(Color::Blue));
        }
        Alignment::Aligned => {
            assert_eq!(test_front.ask().await, Err(503));
            open(&test_front, 1, Color::Blue).await;
            assert_eq!(test_front.ask().await, Ok(Color::Blue));
        }
    }
}

async fn what_is_removed_is_refused_until_it_comes_back(test_front: impl TestFront) {
    open(&test_front, 1, Color::Blue).await;
    hold(&test_front, 2, Exclusive::No).await.expect("a hold");
    direct(&test_front, 2, None).await;

    assert_eq!(test_front.ask().await, Err(503));
    direct(&test_front, 2, None).await;
    // Nothing is served, so nothing is held.
    hold(&test_front, 3, Exclusive::No).await.expect("a hold");
    open(&test_front, 3, Color::Blue).await;
    assert_eq!(test_front.ask().await, Ok(Color::Blue));
}

async fn a_drain_waits_for_what_is_in_flight_and_says_what_is_left(test_front: impl TestFront) {
    open(&test_front, 1, Color::Blue).await;
    let slow = tokio::spawn(test_front.ask_slowly());
    test_front.until_in_flight().await;
    open(&test_front, 2, Color::Green).await;
    let blue = Slot {
        service: ServiceName::from(SHOP),
        color: Color::Blue,
    };

    // G7
    let left = test_front
        .front()
        .drain(blue.clone(), Duration::from_millis(50));
    let left = left.await.expect("it drains");
    assert_eq!((left.requests, left.streams, left.upgrades), (1, 0, 0));

    let drained = tokio::spawn(test_front.front().drain(blue, TEST_TIMEOUT));
    test_front.finish();
    let left = drained
        .await
        .expect("it does not panic")
        .expect("it drains");
    assert_eq!((left.requests, left.streams, left.upgrades), (0, 0, 0));
    assert_eq!(slow.await.expect("it does not panic"), Ok(Color::Blue));
}

async fn a_cut_over_leaves_the_evidence_that_the_front_claims(test_front: impl TestFront) {
    open(&test_front, 1, Color::Blue).await;
    test_front.ask().await.expect("an answer");
    hold(&test_front, 2, Exclusive::No).await.expect("a hold");
    let opened = open(&test_front, 2, Color::Green).await;
    test_front.ask().await.expect("an answer");

    let seen = test_front
        .front()
        .evidence(Epoch(2))
        .await
        .expect("evidence");

    assert!(opened.opened_at_ns > 0);
    match test_front.alignment() {
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

async fn an_incarnation_lasts_as_long_as_the_front_runs(mut test_front: impl TestFront) {
    let first = test_front.front().incarnation().await.expect("it runs");
    open(&test_front, 1, Color::Blue).await;
    assert_eq!(
        test_front.front().incarnation().await.expect("it runs"),
        first
    );

    test_front.restart().await;

    assert_ne!(
        test_front.front().incarnation().await.expect("it runs"),
        first
    );
}

async fn an_exclusive_hold_is_kept_or_refused(test_front: impl TestFront) {
    open(&test_front, 1, Color::Blue).await;

    let held = hold(&test_front, 2, Exclusive::Yes).await;

    match test_front.alignment() {
        Alignment::Gated => assert_eq!(held.expect("a hold").in_flight, 0),
        Alignment::Aligned => assert!(matches!(held, Err(FrontError::Refused(_)))),
    }
}

pub(crate) async fn open(test_front: &impl TestFront, epoch: u64, color: Color) -> SwitchEvidence {
    direct(test_front, epoch, Some(color)).await
}

async fn direct(test_front: &impl TestFront, epoch: u64, to: Option<Color>) -> SwitchEvidence {
    let open = GateAction::Open {
        epoch: Epoch(epoch),
        colors: [(ServiceName::from(SHOP), to)].into(),
    };
    match test_front.front().act(open).await.expect("it opens") {
        Acted::Opened(evidence) => evidence,
        other @ (Acted::Held(_) | Acted::Parked) => panic!("opened, not {other:?}"),
    }
}

async fn hold(
    test_front: &impl TestFront,
    epoch: u64,
    exclusive: Exclusive,
) -> Result<HoldEvidence, FrontError> {
    let hold = GateAction::Hold {
        epoch: Epoch(epoch),
        services: [ServiceName::from(SHOP)].into(),
        max_hold: TEST_TIMEOUT,
        on_uncertain: OnUncertain::ServeOld,
        exclusive,
    };
    match test_front.front().act(hold).await? {
        Acted::Held(evidence) => Ok(evidence),
        other @ (Acted::Opened(_) | Acted::Parked) => panic!("held, not {other:?}"),
    }
}
