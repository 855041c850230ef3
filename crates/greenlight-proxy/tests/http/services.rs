//! Commands to several services of one gate: each has its own fence, its own deadline, and is parked
//! on its own.

use super::lab::{GET, Lab, SHOP};
use super::wire::{Wire, soon};
use greenlight_admin::{
    AdminError, Color, HoldAnswer, HoldRequest, OnUncertain, OpenRequest, ServiceStatus,
    ServicesRequest,
};
use std::time::Duration;

const MAIL: &str = "mail";
const GET_MAIL: &str = "GET / HTTP/1.1\r\nhost: mail\r\n\r\n";
/// Never within a test, in milliseconds.
const LONG: u64 = 600_000;
/// Soon, but not before the commands that come right after the hold, also on a busy machine.
const SHORT: u64 = 2_000;

// G4
#[tokio::test]
async fn a_service_parked_before_a_hold_stays_parked_when_the_deadline_passes() {
    for on_uncertain in [OnUncertain::ServeOld, OnUncertain::Shed] {
        let lab = lab_with_mail().await;
        park(&lab, SHOP, 2).await;
        let mut client = waiting_at_shop(&lab).await;
        hold(&lab, 3, &[SHOP, MAIL], SHORT, on_uncertain)
            .await
            .expect("a hold");
        until_not_held(&lab, MAIL).await;
        assert_parked(&lab, &mut client).await;
        assert!(!lab.evidence(3).await.expired, "no deadline ended anything");
        lab.open(3, Color::Green).await;
        lab.green.serve_one().await;
        assert_eq!(client.response().await.text(), "ok"); // G3
        assert!(!status(&lab, SHOP).await.parked);
    }
}

// G4
#[tokio::test]
async fn a_service_parked_during_a_hold_stays_parked_when_the_deadline_passes() {
    for on_uncertain in [OnUncertain::ServeOld, OnUncertain::Shed] {
        let lab = lab_with_mail().await;
        hold(&lab, 2, &[SHOP, MAIL], SHORT, on_uncertain)
            .await
            .expect("a hold");
        park(&lab, SHOP, 2).await;
        let mut client = waiting_at_shop(&lab).await;
        until_not_held(&lab, MAIL).await;
        assert_parked(&lab, &mut client).await;
    }
}

#[tokio::test]
async fn a_service_that_is_not_known_counts_as_parked() {
    let lab = Lab::start().await;
    let services = vec!["unknown".to_owned(), SHOP.to_owned()];
    let command = ServicesRequest { epoch: 2, services };
    lab.admin.park(&command).await.expect("nothing leads there");
    assert!(status(&lab, SHOP).await.parked);
}

// G4
#[tokio::test]
async fn an_exclusive_hold_that_is_given_up_leaves_a_parked_service_parked() {
    let lab = Lab::start().await;
    let mut slow = lab.client().await;
    slow.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    park(&lab, SHOP, 2).await;
    let command = HoldRequest {
        exclusive_ms: Some(50),
        ..command(3, &[SHOP], LONG, OnUncertain::ServeOld)
    };
    let refused = soon("the refusal", lab.admin.hold(&command)).await;
    refused.expect_err("a request is in flight");
    let status = status(&lab, SHOP).await;
    assert_eq!((status.state.as_str(), status.parked), ("held", true));
}

// G3
#[tokio::test]
async fn opening_some_services_of_a_hold_leaves_the_deadline_of_the_others_running() {
    let lab = lab_with_mail().await;
    hold(&lab, 2, &[SHOP, MAIL], SHORT, OnUncertain::ServeOld)
        .await
        .expect("a hold");
    lab.open(2, Color::Green).await;
    let mut client = lab.client().await;
    client.send(GET_MAIL).await;
    lab.blue.serve_one().await;
    assert_eq!(client.response().await.text(), "ok");
    let seen = lab.admin.evidence(2).await.expect("evidence").services;
    assert_eq!((seen[SHOP].expired, seen[MAIL].expired), (false, true));
}

// G3
#[tokio::test]
async fn a_new_hold_leaves_the_deadline_of_what_an_earlier_one_holds_running() {
    let lab = lab_with_mail().await;
    hold(&lab, 2, &[MAIL], SHORT, OnUncertain::ServeOld)
        .await
        .expect("a hold");
    hold(&lab, 3, &[SHOP], LONG, OnUncertain::Shed)
        .await
        .expect("a hold");
    let mut client = lab.client().await;
    client.send(GET_MAIL).await;
    lab.blue.serve_one().await;
    assert_eq!(client.response().await.text(), "ok");
    assert_eq!(status(&lab, SHOP).await.state, "held");
    let mail = lab.admin.evidence(2).await.expect("evidence").services;
    assert!(mail[MAIL].expired);
    assert!(!lab.evidence(3).await.expired);
}

#[tokio::test]
async fn what_waits_for_a_service_that_is_removed_is_refused_at_once() {
    let lab = lab_with_mail().await;
    hold(&lab, 2, &[MAIL], LONG, OnUncertain::ServeOld)
        .await
        .expect("a hold");
    let mut client = lab.client().await;
    client.send(GET_MAIL).await;
    let waits = async {
        while lab.admin.evidence(2).await.expect("evidence").services[MAIL].held == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("the request at the gate", waits).await;

    let services = [(MAIL.to_owned(), None), ("unheard-of".to_owned(), None)].into();
    let command = OpenRequest { epoch: 2, services };
    lab.admin
        .open(&command)
        .await
        .expect("what is unknown is nowhere");

    assert_eq!(client.response().await.status(), 503);
    assert_eq!(status(&lab, MAIL).await.state, "closed");
    assert_eq!(status(&lab, SHOP).await.state, "open");
    let late = open(&lab, MAIL, 1, Color::Blue).await;
    assert!(late.is_err(), "an older command brings it back: {late:?}");
}

// G6
#[tokio::test]
async fn an_undecided_cut_over_of_one_service_does_not_fence_another() {
    let lab = lab_with_mail().await;
    hold(&lab, 5, &[SHOP], LONG, OnUncertain::ServeOld)
        .await
        .expect("a hold");
    hold(&lab, 3, &[MAIL], LONG, OnUncertain::ServeOld)
        .await
        .expect("the fence of another service");
    open(&lab, MAIL, 3, Color::Green)
        .await
        .expect("the fence of another service");
    let mut client = lab.client().await;
    client.send(GET_MAIL).await;
    lab.green.serve_one().await;
    assert_eq!(client.response().await.text(), "ok"); // G3

    let refusals = [
        hold(&lab, 4, &[MAIL, SHOP], LONG, OnUncertain::ServeOld)
            .await
            .err(),
        open(&lab, SHOP, 4, Color::Green).await.err(),
        open(&lab, MAIL, 2, Color::Blue).await.err(),
        hold(&lab, 3, &[MAIL], LONG, OnUncertain::ServeOld)
            .await
            .err(),
    ];
    for refusal in refusals {
        assert!(
            matches!(refusal, Some(AdminError::Refused { .. })),
            "{refusal:?}"
        );
    }
    // A refused command changes no service, also not those that it names rightly.
    let (shop, mail) = (status(&lab, SHOP).await, status(&lab, MAIL).await);
    assert_eq!(
        (mail.state.as_str(), mail.epoch, mail.opened),
        ("open", 3, 3)
    );
    assert_eq!(
        (shop.state.as_str(), shop.epoch, shop.opened),
        ("held", 5, 1)
    );
    assert_eq!((shop.max_hold_ms, mail.max_hold_ms), (Some(LONG), None));
    assert_eq!(lab.admin.status().await.expect("a status").epoch, 5);
}

// G3
#[tokio::test]
async fn a_service_that_was_never_deployed_is_refused_at_once_while_its_first_deployment_fails() {
    for on_uncertain in [OnUncertain::ServeOld, OnUncertain::Shed] {
        let lab = Lab::start().await;
        // Or it would have the other's requests meanwhile.
        lab.define(SHOP, &["shop"], "/", LONG).await;
        lab.define(MAIL, &["mail"], "/", LONG).await;
        let mut client = lab.client().await;
        assert_nothing_deployed(&mut client).await;
        let held = hold(&lab, 2, &[SHOP, MAIL], LONG, on_uncertain).await;
        assert_eq!(held.expect("a hold").services[MAIL].color, None);
        assert_nothing_deployed(&mut client).await;
        hold(&lab, 3, &[SHOP, MAIL], SHORT, on_uncertain)
            .await
            .expect("a hold");
        until_not_held(&lab, SHOP).await;
        assert_nothing_deployed(&mut client).await;
        assert_eq!(status(&lab, MAIL).await.state, "closed");
        let stale = open(&lab, MAIL, 2, Color::Blue).await;
        stale.expect_err("older than the hold"); // G6

        hold(&lab, 4, &[MAIL], LONG, on_uncertain)
            .await
            .expect("a hold");
        open(&lab, MAIL, 4, Color::Blue).await.expect("deployed");
        client.send(GET_MAIL).await;
        lab.blue.serve_one().await;
        assert_eq!(client.response().await.text(), "ok");
    }
}

// G1
#[tokio::test]
async fn a_repeated_hold_does_not_hide_that_the_first_one_expired() {
    let lab = Lab::start().await;
    lab.hold_for(2, 50, OnUncertain::ServeOld).await;
    until_not_held(&lab, SHOP).await;
    lab.hold(2).await;
    lab.open(2, Color::Green).await;
    assert!(lab.evidence(2).await.expired);
    lab.hold(3).await;
    assert!(!lab.evidence(3).await.expired);
    assert!(lab.evidence(2).await.expired);
}

/// Both services are open to blue; the applications are the same.
async fn lab_with_mail() -> Lab {
    let lab = Lab::start().await;
    lab.define(MAIL, &["mail"], "/", LONG).await;
    open(&lab, MAIL, 1, Color::Blue)
        .await
        .expect("an open gate");
    lab
}

fn command(
    epoch: u64,
    services: &[&str],
    max_hold_ms: u64,
    on_uncertain: OnUncertain,
) -> HoldRequest {
    HoldRequest {
        epoch,
        services: services.iter().map(ToString::to_string).collect(),
        max_hold_ms,
        on_uncertain,
        exclusive_ms: None,
    }
}

async fn hold(
    lab: &Lab,
    epoch: u64,
    services: &[&str],
    max_hold_ms: u64,
    on_uncertain: OnUncertain,
) -> Result<HoldAnswer, AdminError> {
    let command = command(epoch, services, max_hold_ms, on_uncertain);
    soon("the hold", lab.admin.hold(&command)).await
}

async fn open(lab: &Lab, service: &str, epoch: u64, color: Color) -> Result<(), AdminError> {
    let services = [(service.to_owned(), Some(color))].into();
    let command = OpenRequest { epoch, services };
    soon("opening", lab.admin.open(&command)).await.map(|_| ())
}

async fn park(lab: &Lab, service: &str, epoch: u64) {
    let services = vec![service.to_owned()];
    let command = ServicesRequest { epoch, services };
    lab.admin.park(&command).await.expect("a parked service");
}

async fn waiting_at_shop(lab: &Lab) -> Wire {
    let mut client = lab.client().await;
    client.send(GET).await;
    client
}

async fn status(lab: &Lab, service: &str) -> ServiceStatus {
    let status = lab.admin.status().await.expect("the proxy answers");
    status.services[service].clone()
}

async fn until_not_held(lab: &Lab, service: &str) {
    let asking = async {
        while status(lab, service).await.state == "held" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon("the deadline", asking).await;
}

async fn assert_parked(lab: &Lab, client: &mut Wire) {
    let status = status(lab, SHOP).await;
    assert_eq!((status.state.as_str(), status.parked), ("held", true));
    assert!(client.is_silent().await, "a parked request was answered");
    assert!(lab.blue.is_alone().await, "a parked request was let go");
}

async fn assert_nothing_deployed(client: &mut Wire) {
    client.send(GET_MAIL).await;
    assert_eq!(client.response().await.status(), 503);
}
