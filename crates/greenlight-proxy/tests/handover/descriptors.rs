//! A proxy that may open no more descriptors.

use crate::client::Client;
use crate::proxy::{Process, Shop, send, until};
use crate::trial;
use greenlight_admin::Color;
use libtest_mimic::Trial;
use rustix::process::{Pid, Resource, getrlimit, prlimit};
use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "without_descriptors_requests_wait_and_the_next_descriptor_is_for_who_came_first",
        out_of_descriptors,
    )]
}

async fn out_of_descriptors() {
    let mut shop = Shop::new().await;
    shop.options.threads = 1;
    let (proxy, address) = shop.start().await;
    shop.define().await;
    shop.open_to(0, Color::Blue).await;
    let mut first = Client::connect(address).await.expect("connected");
    assert_eq!(first.get("/").await.expect("a response").body, "blue");
    // There is no connection to green yet.
    shop.open_to(1, Color::Green).await;
    until("the admin connections are closed", async || {
        let before = open(&proxy);
        tokio::time::sleep(Duration::from_millis(20)).await;
        (open(&proxy) == before).then_some(())
    })
    .await;

    allow(&proxy, 0);
    let before = open(&proxy).len();
    let first = send(first, "/");
    // What it gives up for it is its unused connection to blue.
    until("an unused connection is closed", async || {
        (open(&proxy).len() < before).then_some(())
    })
    .await;
    let newcomer = Client::connect(address).await.expect("the kernel's queue");
    let newcomer = send(newcomer, "/");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!first.is_finished(), "answered without a connection");

    // Exactly one more.
    let taken = open(&proxy);
    let next = (0..u64::MAX).find(|number| !taken.contains(number));
    allow(&proxy, next.expect("numbers do not end") + 1);
    let response = first.await.expect("it was not refused");
    assert_eq!((response.status, response.body.as_str()), (200, "green"));

    allow(
        &proxy,
        getrlimit(Resource::Nofile).current.expect("a bound"),
    );
    let response = newcomer.await.expect("it was accepted in the end");
    assert_eq!((response.status, response.body.as_str()), (200, "green"));
}

/// Sets the bound on the numbers of descriptors.
fn allow(proxy: &Process, most: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(most);
    let pid = i32::try_from(proxy.pid()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Nofile, limit).expect("it is a child");
}

fn open(proxy: &Process) -> BTreeSet<u64> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).expect("it runs");
    let names = entries.map(|entry| entry.expect("it can be listed").file_name());
    names
        .map(|name| name.to_string_lossy().parse().expect("a number"))
        .collect()
}
