//! Sockets that a service manager opened, and that are there when no proxy is.

use crate::client::Client;
use crate::proxy::{Options, Process, Shop};
use crate::trial;
use greenlight_admin::Color;
use libtest_mimic::Trial;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::sockopt::set_socket_reuseport;
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "users_wait_on_a_passed_socket_while_the_proxy_is_started_again",
            restarted,
        ),
        trial(
            "a_passed_socket_that_does_not_listen_is_refused_by_its_name",
            not_a_listener,
        ),
    ]
}

async fn restarted() {
    let mut shop = Shop::new().await;
    let passed = Passed::open(600);
    shop.options.listen = vec![passed.address.to_string().parse().expect("an address")];
    shop.options.threads = 3;
    let first = passed.start(&shop.options);
    let status = shop.led_by(&first).await;
    assert_eq!(status.listening, [passed.address.to_string()]);
    shop.define().await;
    shop.open_to(0, Color::Blue).await;
    // The kernel spreads them over all sockets: every one is accepted from.
    for _ in 0..16 {
        let mut client = Client::connect(passed.address).await.expect("connected");
        assert_eq!(client.get("/").await.expect("answered").body, "blue");
    }

    first.terminate();
    assert!(first.ended().await.0.success());
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let mut client = Client::connect(passed.address).await.expect("connected");
        waiting.push(tokio::spawn(async move { client.get("/").await }));
    }
    let second = passed.start(&shop.options);
    shop.led_by(&second).await;

    for response in waiting {
        let response = response.await.expect("it was asked");
        assert_eq!(response.expect("answered").body, "blue"); // G3
    }
    // They are handed over like its own.
    let third = shop.handover(1).await;
    let mut client = Client::connect(passed.address).await.expect("connected");
    assert_eq!(client.get("/").await.expect("answered").body, "blue");
    assert!(second.ended().await.0.success());
    drop(third);
}

async fn not_a_listener() {
    let shop = Shop::new().await;
    let file: OwnedFd = tempfile::tempfile().expect("a folder").into();
    let fd = fcntl_dupfd_cloexec(&file, 700).expect("a free number");
    fcntl_setfd(&fd, FdFlags::empty()).expect("it is open");
    let environment = [
        ("LISTEN_FDS", "1".to_owned()),
        ("LISTEN_FDS_FIRST_FD", fd.as_raw_fd().to_string()),
        ("LISTEN_FDNAMES", "users".to_owned()),
    ];

    let (status, said) = Process::spawn_with(&shop.options, &environment)
        .ended()
        .await;

    assert!(!status.success());
    assert!(said.contains("the socket `users`"), "{said}");
}

/// Two sockets of one address, under consecutive numbers that children have too.
struct Passed {
    address: SocketAddr,
    sockets: Vec<OwnedFd>,
}

impl Passed {
    /// `first` is the smallest number; each test has its own.
    fn open(first: i32) -> Self {
        let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sockets = (0..2).map(|_| {
            let open = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
            set_socket_reuseport(&open, true).expect("Linux has it");
            bind(&open, &address).expect("the port is ours");
            listen(&open, 128).expect("it is bound");
            let open = TcpListener::from(open);
            address = open.local_addr().expect("it has one");
            let passed = fcntl_dupfd_cloexec(&open, first).expect("a free number");
            fcntl_setfd(&passed, FdFlags::empty()).expect("it is open");
            passed
        });
        let sockets: Vec<_> = sockets.collect();
        assert_eq!(sockets[1].as_raw_fd(), sockets[0].as_raw_fd() + 1);
        Self { address, sockets }
    }

    fn start(&self, options: &Options) -> Process {
        let environment = [
            ("LISTEN_FDS", self.sockets.len().to_string()),
            (
                "LISTEN_FDS_FIRST_FD",
                self.sockets[0].as_raw_fd().to_string(),
            ),
            ("LISTEN_FDNAMES", "users:users".to_owned()),
        ];
        Process::spawn_with(options, &environment)
    }
}
