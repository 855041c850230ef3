//! Health checks over real sockets: what is asked, what counts, how often, and what is said.

use greenlight_agent::health::{Answers, HealthChange, HealthTracker, Probe, ProbeError};
use greenlight_ports::reserve_address;
use greenlight_release::health::HealthCheck;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

#[tokio::test]
async fn it_asks_for_the_path_with_the_host_that_is_configured() {
    let (address, heads) = application(&["200 OK"]);
    let check = HealthCheck {
        path: "/healthy?deep=1".to_owned(),
        host: Some("shop.example.com".to_owned()),
        ..HealthCheck::default()
    };

    let answer = Probe::new(address, check).ask().await;

    assert_eq!(answer.map_err(said), Ok(200));
    let head = heads.recv().expect("it was asked");
    assert!(
        head.starts_with("GET /healthy?deep=1 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nhost: shop.example.com\r\n"), "{head}");
}

#[tokio::test]
async fn without_a_host_it_sends_the_address() {
    let (address, heads) = application(&["200 OK"]);

    let answer = Probe::new(address, HealthCheck::default()).ask().await;

    assert_eq!(answer.map_err(said), Ok(200));
    let head = heads.recv().expect("it was asked");
    assert!(head.starts_with("GET /up HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nhost: {address}\r\n")), "{head}");
}

#[tokio::test]
async fn only_the_statuses_that_are_configured_count() {
    let check = HealthCheck {
        statuses: vec![(200, 204), (418, 418)],
        ..HealthCheck::default()
    };
    for (status, is_well) in [
        ("200 OK", true),
        ("204 No Content", true),
        ("206 Partial Content", false),
        ("418 I'm a teapot", true),
        ("404 Not Found", false),
        ("500 Internal Server Error", false),
    ] {
        let (address, _heads) = application(&[status]);

        let answer = Probe::new(address, check.clone()).ask().await;

        let code = status[..3].to_owned();
        let answer = answer.map(|status| status.to_string()).map_err(said);
        assert_eq!(answer, if is_well { Ok(code) } else { Err(code) });
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_said_to_be_one() {
    let (elsewhere, heads) = application(&["200 OK"]);
    let redirect = format!("302 Found\r\nlocation: http://{elsewhere}/login");
    let (address, _heads) = application(&[&redirect]);

    let answer = Probe::new(address, HealthCheck::default()).ask().await;

    let said = answer
        .expect_err("a redirect is no good answer")
        .to_string();
    assert!(said.contains("302"), "{said}");
    assert!(
        said.contains(&format!("http://{elsewhere}/login")),
        "{said}"
    );
    assert!(heads.try_recv().is_err(), "the redirect was followed");
}

#[tokio::test]
async fn an_application_that_does_not_answer_in_time_is_not_well() {
    // It accepts, because the kernel does, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it listens");
    let check = HealthCheck {
        timeout: Duration::from_millis(120),
        ..HealthCheck::default()
    };
    let began = Instant::now();

    let answer = Probe::new(address, check).ask().await;

    assert_eq!(
        answer.map_err(said),
        Err("no answer within 120 ms".to_owned())
    );
    assert!(began.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn refused_broken_and_senseless_answers_are_told_apart() {
    let address = reserve_address().expect("a port is free");
    let refused = Probe::new(address, HealthCheck::default()).ask().await;
    assert_eq!(refused.map_err(said), Err("connection refused".to_owned()));

    let (address, _heads) = application(&[""]);
    let closed = Probe::new(address, HealthCheck::default()).ask().await;
    let said = closed.expect_err("it closed without an answer").to_string();
    assert!(said.contains("no valid answer"), "{said}");
}

#[tokio::test]
async fn an_application_is_ready_after_passes_in_a_row_and_unwell_after_failures_in_a_row() {
    let (ok, bad) = ("200 OK", "503 Service Unavailable");
    let (address, _heads) = application(&[bad, ok, bad, ok, ok, bad, bad, ok, bad, bad, bad]);
    let check = HealthCheck {
        successes: 2,
        failures: 3,
        ..HealthCheck::default()
    };
    let probe = Probe::new(address, check.clone());
    let mut tracker = HealthTracker::new(&check);
    let mut turns = Vec::new();

    for _ in 0..11 {
        turns.push(tracker.take(probe.ask().await.is_ok()));
    }

    let mut expected = [HealthChange::Same; 11];
    expected[4] = HealthChange::Ready; // G4: not after one pass, nor after two that are not in a row.
    expected[10] = HealthChange::Unhealthy;
    assert_eq!(turns, expected);
}

#[tokio::test]
async fn a_starting_application_is_asked_often_and_less_often_up_to_half_a_second() {
    let address = reserve_address().expect("a port is free");
    let check = HealthCheck::default();
    let probe = Probe::new(address, check.clone());
    let mut tracker = HealthTracker::new(&check);
    let mut waits = Vec::new();

    for _ in 0..10 {
        tracker.take(probe.ask().await.is_ok());
        waits.push(tracker.wait());
    }

    assert_eq!(waits[0], Duration::from_millis(100));
    assert!(waits.is_sorted(), "{waits:?}");
    assert_eq!(waits[9], Duration::from_millis(500));
    // A deployment is not rounded up to the interval once the application begins to answer.
    tracker.take(true);
    assert_eq!(tracker.wait(), Duration::from_millis(100));
}

#[tokio::test]
async fn the_explanation_has_the_last_answers_and_the_last_lines() {
    let (address, _heads) = application(&["500 Oh", "502 No", "500 Oh", "404 Gone", "503 Later"]);
    let check = HealthCheck::default();
    let probe = Probe::new(address, check.clone());
    let mut answers = Answers::default();
    answers.push(&Ok(299));
    for _ in 0..5 {
        answers.push(&probe.ask().await);
    }
    let log = ["cannot reach the database", "giving up"].map(ToOwned::to_owned);

    let text = answers.explain(&check, &log);

    assert_eq!(
        text,
        "its check on `/up` does not pass; last answers: 500, 502, 500, 404, 503; \
         last lines it wrote: cannot reach the database | giving up"
    );
}

/// What an error says.
#[expect(clippy::needless_pass_by_value, reason = "it is mapped over results")]
fn said(error: ProbeError) -> String {
    error.to_string()
}

/// An application that gives these answers, one a connection: a status and perhaps headers, or
/// nothing at all. Returns its address and the heads that it was sent.
fn application(answers: &[&str]) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let answers: Vec<_> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let (sender, heads) = channel();
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else {
                return;
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    return;
                }
                head.extend(byte);
            }
            // The test may have seen enough.
            let _ = sender.send(String::from_utf8_lossy(&head).into_owned());
            if !answer.is_empty() {
                let text = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.write_all(text.as_bytes());
            }
        }
    });
    (address, heads)
}
