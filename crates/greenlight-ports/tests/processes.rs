//! Several processes that reserve ports at the same time.
//!
//! The test program is also the program that reserves: with a number in its environment it
//! reserves so many ports, prints them, and keeps them until its standard input ends.

use greenlight_ports::{ephemeral, reserve_port};
use libtest_mimic::{Arguments, Trial};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitCode, Stdio};

/// How many ports a process is to reserve.
const COUNT: &str = "GREENLIGHT_TEST_RESERVE";
const PROCESSES: usize = 8;
const PORTS: usize = 200;

fn main() -> ExitCode {
    if let Ok(count) = std::env::var(COUNT) {
        for _ in 0..count.parse().expect("a number") {
            println!("{}", reserve_port().expect("a port is free"));
        }
        let mut all = String::new();
        let _ = std::io::stdin().read_to_string(&mut all);
        return ExitCode::SUCCESS;
    }
    let trials = vec![Trial::test(
        "processes_that_reserve_at_the_same_time_are_never_given_the_same_port",
        || {
            processes_that_reserve_at_the_same_time_are_never_given_the_same_port();
            Ok(())
        },
    )];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn processes_that_reserve_at_the_same_time_are_never_given_the_same_port() {
    // All run before the first of them is asked what it has.
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| reserving()).collect();
    let mut owners = BTreeMap::<u16, Vec<usize>>::new();
    for (number, process) in processes.iter_mut().enumerate() {
        let stdout = process.stdout.take().expect("it is piped");
        let lines = BufReader::new(stdout).lines().take(PORTS);
        for line in lines {
            let port = line.expect("it prints lines").parse().expect("a port");
            owners.entry(port).or_default().push(number);
        }
    }
    // None has ended yet, so none has given its ports back.
    for process in &mut processes {
        assert_eq!(process.try_wait().expect("it is a child"), None);
    }

    let shared: Vec<_> = owners.iter().filter(|(_, of)| of.len() > 1).collect();
    let drawn: usize = owners.values().map(Vec::len).sum();
    assert_eq!(drawn, PROCESSES * PORTS);
    assert!(shared.is_empty(), "these have several owners: {shared:?}");
    let range = ephemeral();
    let inside: Vec<_> = owners.keys().filter(|port| range.contains(port)).collect();
    assert!(inside.is_empty(), "in the range of the kernel: {inside:?}");
    for mut process in processes {
        drop(process.stdin.take());
        assert!(process.wait().expect("it is a child").success());
    }
}

fn reserving() -> Child {
    let program = std::env::current_exe().expect("it runs");
    let command = &mut Command::new(program);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let started = piped.env(COUNT, PORTS.to_string()).spawn();
    started.expect("it can be started")
}
