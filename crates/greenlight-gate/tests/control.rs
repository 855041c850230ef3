//! The control, command by command: what each does to routes, file and answers, and in which order.
//!
//! In one file, because all tests use the bench and the commands at its end.

#[path = "shell/file.rs"]
mod file;
mod shell;

use file::GateFile;
use greenlight_gate::{
    Answer, Awaited, Color, Command, Counts, CountsByCutOver, CountsByService, Durability,
    GateEvent, GateMutant, HandoverState, HoldRequest, Mode, OnUncertain, OpenRequest, Refusal,
    Role, Route, RoutingState, ServicesRequest, Ticket,
};
use shell::{Done, GateProcess};
use std::collections::BTreeMap;

const SHOP: &str = "shop";
const MAIL: &str = "mail";

// G1
#[test]
fn a_hold_closes_the_gates_before_it_is_written_and_is_answered_when_nothing_is_admitted() {
    let mut bench = Bench::open();

    let hold = bench.command(hold(1, &[SHOP, MAIL]));

    assert_eq!(
        bench.steps(),
        ["reset", "reset", "route", "route", "arm", "persist", "wait"]
    );
    assert_eq!(bench.process.routes[SHOP], Route::Held(Some(Color::Blue)));
    assert_eq!(bench.answer(hold), None);
    bench.event(GateEvent::NoneAdmitting { ticket: hold });
    let Some(Ok(Answer::Held(answer))) = bench.answer(hold) else {
        panic!("it is held")
    };
    assert_eq!(answer.services[SHOP].color, Some(Color::Blue));
}

#[test]
fn an_opening_is_noted_before_the_gates_flip_and_answered_when_it_is_on_the_disk() {
    let mut bench = Bench::held(1);

    let open = bench.command(open(1, &[SHOP, MAIL], Color::Green));

    let steps = ["persist", "route", "route", "persist to disk", "reply"];
    assert_eq!(bench.steps(), steps);
    assert!(matches!(bench.answer(open), Some(Ok(Answer::Opened(_)))));
    assert_eq!(
        bench.mode_on_disk(SHOP),
        Mode::Open {
            color: Color::Green
        }
    );
}

#[test]
fn what_was_served_before_is_opened_again_without_a_note() {
    let mut bench = Bench::held(1);

    bench.command(open(1, &[SHOP, MAIL], Color::Blue));

    assert_eq!(
        bench.steps(),
        ["route", "route", "persist to disk", "reply"]
    );
}

// G1: the process ends after the flip and before the disk has it.
#[test]
fn a_process_that_ended_while_it_opened_serves_neither_color_until_it_is_told() {
    let mut bench = Bench::held(1);
    bench.order_until(open(1, &[SHOP], Color::Green), "route");
    assert_eq!(bench.process.routes[SHOP], Route::Open(Color::Green));

    bench.restart();

    assert_eq!(bench.process.routes[SHOP], Route::Held(Some(Color::Blue)));
    bench.pass_deadlines();
    assert_eq!(bench.process.routes[SHOP], Route::Shed(Some(Color::Blue)));
    assert_eq!(bench.process.routes[MAIL], Route::Open(Color::Blue));
    bench.command(hold(1, &[SHOP]));
    bench.pass_deadlines();
    assert_eq!(bench.process.routes[SHOP], Route::Held(Some(Color::Blue)));
    bench.command(open(1, &[SHOP], Color::Green));
    assert_eq!(bench.process.routes[SHOP], Route::Open(Color::Green));
}

#[test]
fn a_process_that_ended_while_it_opened_and_is_shed_serves_neither_color_after_a_later_hold() {
    let mut bench = Bench::held(1);
    bench.order_until(open(1, &[SHOP], Color::Green), "route");
    bench.restart();

    let Command::Park(services) = park(1, &[SHOP]) else {
        unreachable!("it parks")
    };
    bench.command(Command::Shed(services));
    bench.command(hold(1, &[SHOP]));
    bench.pass_deadlines();

    assert_eq!(bench.process.routes[SHOP], Route::Held(Some(Color::Blue)));
}

#[test]
fn what_cannot_be_noted_is_flipped_all_the_same() {
    let mut bench = Bench::held(1);
    bench.is_broken = true;

    let open = bench.command(open(1, &[SHOP], Color::Green));

    assert_eq!(bench.process.routes[SHOP], Route::Open(Color::Green));
    assert!(matches!(
        bench.answer(open),
        Some(Err(Refusal::NotWritten { .. }))
    ));
}

#[test]
fn the_deadline_serves_the_old_color_or_sheds_and_says_so() {
    for (on_uncertain, route) in [
        (OnUncertain::ServeOld, Route::Open(Color::Blue)),
        (OnUncertain::Shed, Route::Shed(Some(Color::Blue))),
    ] {
        let mut bench = Bench::open();
        let Command::Hold(request) = hold(1, &[SHOP]) else {
            unreachable!("it is a hold")
        };
        bench.command(Command::Hold(HoldRequest {
            on_uncertain,
            ..request
        }));
        bench.pass_deadlines();

        assert_eq!(bench.process.routes[SHOP], route);
        assert!(bench.evidence(1, SHOP).expired);
    }
}

#[test]
fn a_hold_that_is_not_complete_at_its_deadline_is_refused() {
    let mut bench = Bench::open();
    let hold = bench.command(hold(1, &[SHOP]));

    bench.pass_deadlines();

    assert_eq!(bench.answer(hold), Some(Err(Refusal::Superseded)));
    bench.event(GateEvent::NoneAdmitting { ticket: hold });
    assert_eq!(bench.replies(), 1);
}

#[test]
fn an_exclusive_hold_that_takes_too_long_opens_again() {
    let mut bench = Bench::open();
    bench.in_flight(SHOP, Color::Blue, 2);
    let Command::Hold(request) = hold(1, &[SHOP]) else {
        unreachable!("it is a hold")
    };
    let hold = bench.command(Command::Hold(HoldRequest {
        exclusive_ms: Some(5),
        ..request
    }));
    bench.event(GateEvent::NoneAdmitting { ticket: hold });
    bench.event(GateEvent::NoRequests {
        ticket: hold,
        in_time: false,
    });

    assert_eq!(bench.process.routes[SHOP], Route::Open(Color::Blue));
    let refusal = bench
        .answer(hold)
        .expect("it is answered")
        .expect_err("it is refused");
    assert_eq!(
        refusal.to_string(),
        "requests were still in flight (`shop` has 2)"
    );
}

// The demands of docs/design/testing.md.

#[test]
fn a_parked_service_is_let_go_only_by_opening_it() {
    let mut bench = Bench::open();
    bench.command(park(1, &[SHOP]));
    bench.command(hold(2, &[SHOP, MAIL]));
    bench.restart();
    bench.pass_deadlines();

    assert_eq!(bench.process.routes[SHOP], Route::Held(Some(Color::Blue)));
    assert_eq!(bench.process.routes[MAIL], Route::Open(Color::Blue));
    bench.command(open(2, &[SHOP], Color::Green));
    assert_eq!(bench.process.routes[SHOP], Route::Open(Color::Green));
}

#[test]
fn opening_or_holding_one_service_leaves_the_deadline_of_the_rest_running() {
    let mut bench = Bench::held(1);
    bench.command(open(1, &[MAIL], Color::Green));
    bench.command(hold(2, &[MAIL]));
    let first = bench.armed[0];

    bench.event(GateEvent::DeadlinePassed { generation: first });

    assert_eq!(bench.process.routes[SHOP], Route::Open(Color::Blue));
    assert_eq!(bench.process.routes[MAIL], Route::Held(Some(Color::Green)));
}

// G6
#[test]
fn an_order_that_is_too_old_for_one_service_changes_none_of_them() {
    let mut bench = Bench::open();
    bench.command(hold(5, &[SHOP]));
    bench.restart();
    let before = bench.process.control.clone();

    let older = |service: &str, epoch| {
        let (service, last) = (service.to_owned(), 5);
        Some(Err(Refusal::Older {
            service,
            epoch,
            last,
        }))
    };
    for command in [
        hold(4, &[MAIL, SHOP]),
        open(4, &[MAIL, SHOP], Color::Green),
        park(4, &[MAIL, SHOP]),
    ] {
        let ticket = bench.command(command);
        assert_eq!(bench.answer(ticket), older(SHOP, 4));
        assert_eq!(bench.process.control, before);
    }
    bench.command(open(5, &[SHOP], Color::Green));
    let late = bench.command(hold(5, &[SHOP]));
    let service = SHOP.to_owned();
    let refusal = Refusal::AlreadyOpened { service, epoch: 5 };
    assert_eq!(bench.answer(late), Some(Err(refusal)));
    bench.command(open(4, &[MAIL], Color::Green));
    assert_eq!(bench.process.routes[MAIL], Route::Open(Color::Green));
}

#[test]
fn a_service_that_was_never_opened_is_not_held() {
    let mut bench = Bench::new();
    bench.define(SHOP);

    let hold = bench.command(hold(1, &[SHOP]));
    bench.event(GateEvent::NoneAdmitting { ticket: hold });

    assert!(matches!(bench.answer(hold), Some(Ok(Answer::Held(_)))));
    assert_eq!(bench.process.routes[SHOP], Route::Closed);
    assert_eq!(bench.armed, []);
}

#[test]
fn the_last_admission_is_told_as_it_is_when_it_is_asked_for() {
    let mut bench = Bench::open();
    bench.admitted(SHOP, Color::Blue, 10);
    let hold = bench.command(hold(1, &[SHOP]));
    bench.event(GateEvent::NoneAdmitting { ticket: hold });
    assert_eq!(bench.evidence(1, SHOP).last_admission_old_ns, Some(10));
    bench.pass_deadlines();
    bench.admitted(SHOP, Color::Blue, 20);
    assert_eq!(bench.evidence(1, SHOP).last_admission_old_ns, Some(20));
    bench.command(open(1, &[SHOP], Color::Blue));
    bench.admitted(SHOP, Color::Blue, 30);

    assert_eq!(bench.evidence(1, SHOP).last_admission_old_ns, Some(20));
}

#[test]
fn that_a_hold_expired_is_told_after_it_is_repeated_and_after_a_restart() {
    let mut bench = Bench::open();
    bench.command(hold(1, &[SHOP]));
    bench.pass_deadlines();
    bench.command(hold(1, &[SHOP]));
    assert!(bench.evidence(1, SHOP).expired);
    bench.restart();
    assert!(bench.evidence(1, SHOP).expired);
    bench.command(hold(2, &[SHOP]));

    assert!(!bench.evidence(2, SHOP).expired);
    assert!(bench.evidence(1, SHOP).expired);
}

// Several processes.

#[test]
fn nothing_is_handed_over_during_a_hold_and_no_order_is_obeyed_during_a_handover() {
    let mut bench = Bench::held(1);
    let refused = bench.command(Command::HandOver);
    assert_eq!(bench.answer(refused), Some(Err(Refusal::HoldIsOn)));
    bench.pass_deadlines();
    bench.command(Command::HandOver);

    let refused = bench.command(hold(2, &[SHOP]));

    assert_eq!(bench.answer(refused), Some(Err(Refusal::HandingOver)));
    bench.event(GateEvent::HandoverFailed);
    let taken = bench.command(hold(2, &[SHOP]));
    assert_eq!(bench.answer(taken), None);
}

#[test]
fn a_follower_routes_as_its_leader_says_and_keeps_a_later_deadline() {
    let mut leader = Bench::open();
    let mut follower = leader.hand_over();

    leader.command(hold(1, &[SHOP]));
    follower.follow(&mut leader);

    assert_eq!(
        follower.process.routes[SHOP],
        Route::Held(Some(Color::Blue))
    );
    assert!(matches!(
        follower.process.control.role(),
        Role::Follower { last: (2, 2) }
    ));
    follower.pass_deadlines();
    assert_eq!(follower.process.routes[SHOP], Route::Open(Color::Blue));
    assert_eq!(
        follower.file,
        GateFile::default(),
        "the file is the leader's"
    );
}

#[test]
fn a_leader_waits_for_its_followers_in_a_hold_and_before_a_flip_that_no_hold_came_before() {
    let mut leader = Bench::open();
    let mut follower = leader.hand_over();

    let flip = leader.command(open(1, &[SHOP], Color::Green));
    assert_eq!(leader.process.routes[SHOP], Route::Held(Some(Color::Blue)));
    follower.follow(&mut leader);
    leader.event(GateEvent::Replicated {
        ticket: flip,
        in_time: true,
    });
    assert_eq!(leader.process.routes[SHOP], Route::Held(Some(Color::Blue)));
    leader.event(GateEvent::NoneAdmitting { ticket: flip });
    // Followers are told of the note as well.
    assert_eq!(leader.process.routes[SHOP], Route::Held(Some(Color::Blue)));
    leader.event(GateEvent::Replicated {
        ticket: flip,
        in_time: true,
    });

    assert_eq!(leader.process.routes[SHOP], Route::Open(Color::Green));
    assert_eq!(leader.answer(flip), None);
    leader.event(GateEvent::Replicated {
        ticket: flip,
        in_time: true,
    });
    leader.event(GateEvent::Counted {
        ticket: flip,
        others: Some(CountsByCutOver::default()),
    });
    assert!(matches!(leader.answer(flip), Some(Ok(Answer::Opened(_)))));
}

// G1: the leader ends after its flip and before its follower has heard of it.
#[test]
fn a_follower_knows_that_its_leader_is_about_to_flip_before_it_does() {
    let mut leader = Bench::open();
    let mut follower = leader.hand_over();
    let hold = leader.command(hold(1, &[SHOP]));
    follower.follow(&mut leader);
    for event in [
        GateEvent::Replicated {
            ticket: hold,
            in_time: true,
        },
        GateEvent::NoneAdmitting { ticket: hold },
        GateEvent::Counted {
            ticket: hold,
            others: None,
        },
    ] {
        leader.event(event);
    }
    let flip = leader.command(open(1, &[SHOP], Color::Green));
    assert_eq!(leader.process.routes[SHOP], Route::Held(Some(Color::Blue)));
    follower.follow(&mut leader);
    leader.event(GateEvent::Replicated {
        ticket: flip,
        in_time: true,
    });
    assert_eq!(leader.process.routes[SHOP], Route::Open(Color::Green));

    follower.pass_deadlines();

    assert_eq!(
        follower.process.routes[SHOP],
        Route::Shed(Some(Color::Blue))
    );
}

/// A process, its file, and what it has done.
struct Bench {
    process: GateProcess,
    file: GateFile,
    counts: CountsByService,
    tickets: u64,
    done: Vec<Done>,
    armed: Vec<u64>,
    answers: BTreeMap<Ticket, Result<Answer, Refusal>>,
    is_broken: bool,
}

impl Bench {
    fn new() -> Self {
        Self::with(GateProcess::restarted(
            1,
            RoutingState::default(),
            GateMutant::None,
        ))
    }

    fn with(process: GateProcess) -> Self {
        Self {
            process,
            file: GateFile::default(),
            counts: CountsByService::new(),
            tickets: 0,
            done: Vec::new(),
            armed: Vec::new(),
            answers: BTreeMap::new(),
            is_broken: false,
        }
    }

    /// Two services, open to blue.
    fn open() -> Self {
        let mut bench = Self::new();
        bench.define(SHOP);
        bench.define(MAIL);
        bench.command(open(0, &[SHOP, MAIL], Color::Blue));
        bench.done.clear();
        bench
    }

    /// The same, held.
    fn held(epoch: u64) -> Self {
        let mut bench = Self::open();
        let hold = bench.command(hold(epoch, &[SHOP, MAIL]));
        bench.event(GateEvent::NoneAdmitting { ticket: hold });
        bench.done.clear();
        bench
    }

    fn define(&mut self, name: &str) -> Ticket {
        let name = name.to_owned();
        self.command(Command::Define { name, settings: () })
    }

    fn remove(&mut self, name: &str) -> Ticket {
        let name = name.to_owned();
        self.command(Command::Remove { name })
    }

    fn command(&mut self, command: Command<()>) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.event(GateEvent::Commanded { ticket, command });
        ticket
    }

    fn event(&mut self, event: GateEvent<()>) {
        self.process.take(event, 100, &self.counts);
        while self.step().is_some() {}
    }

    /// Carries a command out as far as this step, and no further.
    fn order_until(&mut self, command: Command<()>, last: &str) {
        let ticket = Ticket(99);
        self.process
            .take(GateEvent::Commanded { ticket, command }, 100, &self.counts);
        while self.step() != Some(last) {}
        assert!(self.process.has_effects(), "it was the last step");
    }

    fn step(&mut self) -> Option<&'static str> {
        let done = self.process.next(&self.counts)?;
        let name = match done.clone() {
            Done::ResetCounters(_) => "reset",
            Done::CountExpiry(_) => "expiry",
            Done::Routed { .. } => "route",
            Done::ServicesSet => "services",
            Done::Armed { generation, .. } => {
                self.armed.push(generation);
                "arm"
            }
            Done::Persists {
                ticket,
                durability,
                state,
            } => {
                let mut result = Ok(());
                if self.is_broken {
                    result = Err("the disk is broken".to_owned());
                } else {
                    self.file.write(state, durability);
                }
                if let Some(ticket) = ticket {
                    let written = GateEvent::Written { ticket, result };
                    self.process.take(written, 100, &self.counts);
                }
                match durability {
                    Durability::Process => "persist",
                    Durability::Disk => "persist to disk",
                }
            }
            Done::Replicates { .. } => "replicate",
            Done::Waits { what, .. } => match what {
                Awaited::NoneAdmitting(_) => "wait",
                Awaited::NoRequests { .. } => "wait for no requests",
                Awaited::Counts { .. } => "count",
            },
            Done::Replied { ticket, answer } => {
                let before = self.answers.insert(ticket, answer);
                assert_eq!(before, None, "a command is answered once");
                "reply"
            }
        };
        self.done.push(done);
        Some(name)
    }

    /// What was done since this was asked last.
    fn steps(&mut self) -> Vec<&'static str> {
        let done = std::mem::take(&mut self.done);
        done.iter()
            .map(|done| match done {
                Done::ResetCounters(_) => "reset",
                Done::CountExpiry(_) => "expiry",
                Done::Routed { .. } => "route",
                Done::ServicesSet => "services",
                Done::Armed { .. } => "arm",
                Done::Persists { durability, .. } => match durability {
                    Durability::Process => "persist",
                    Durability::Disk => "persist to disk",
                },
                Done::Replicates { .. } => "replicate",
                Done::Waits { .. } => "wait",
                Done::Replied { .. } => "reply",
            })
            .collect()
    }

    fn answer(&self, ticket: Ticket) -> Option<Result<Answer, Refusal>> {
        self.answers.get(&ticket).cloned()
    }

    fn replies(&self) -> usize {
        let replies = self.done.iter();
        replies
            .filter(|done| matches!(done, Done::Replied { .. }))
            .count()
    }

    fn restart(&mut self) {
        let kept = self.file.written.clone();
        self.process = GateProcess::restarted(9, kept, GateMutant::None);
        self.armed.clear();
        self.answers.clear();
        let followers = [].into();
        self.event(GateEvent::Started { followers });
    }

    fn pass_deadlines(&mut self) {
        for generation in std::mem::take(&mut self.armed) {
            self.event(GateEvent::DeadlinePassed { generation });
        }
    }

    /// This process is replaced by its successor; it is returned as its follower.
    fn hand_over(&mut self) -> Self {
        self.command(Command::HandOver);
        let state: HandoverState<()> = self.process.control.to_hand_over();
        self.event(GateEvent::HandedOver);
        let successor = Self::with(GateProcess::with(2, state, GateMutant::None));
        let mut follower = std::mem::replace(self, successor);
        follower.file = GateFile::default();
        let followers = ["first".to_owned()].into();
        self.event(GateEvent::Started { followers });
        follower
    }

    /// Obeys the last message of its leader, which does not hear of it.
    fn obey(&mut self, leader: &Self) -> Ticket {
        let followed = leader.done.iter().rev().find_map(|done| match done {
            Done::Replicates { followed, .. } => Some(followed.clone()),
            Done::ResetCounters(_)
            | Done::CountExpiry(_)
            | Done::Routed { .. }
            | Done::ServicesSet
            | Done::Armed { .. }
            | Done::Persists { .. }
            | Done::Waits { .. }
            | Done::Replied { .. } => None,
        });
        let followed = followed.expect("the leader said something");
        let ticket = self.command(Command::Follow(followed));
        self.event(GateEvent::NoneAdmitting { ticket });
        ticket
    }

    fn own_counts(&self) -> CountsByCutOver {
        self.process.control.own_counts(&self.counts)
    }

    /// Does what its leader has last said.
    fn follow(&mut self, leader: &mut Self) {
        let ticket = self.obey(leader);
        assert!(matches!(self.answer(ticket), Some(Ok(Answer::Counts(_)))));
        // A hold counts what followers have counted before its totals begin.
        if leader.process.routes[SHOP] == Route::Open(Color::Blue) {
            let ticket = Ticket(leader.tickets);
            let others = Some(CountsByCutOver::default());
            leader.event(GateEvent::Counted { ticket, others });
            self.follow(leader);
        }
    }

    fn mode_on_disk(&self, service: &str) -> Mode {
        self.file.synced.services[service].mode
    }

    fn counts_of(&mut self, service: &str) -> &mut Counts {
        self.counts.entry(service.to_owned()).or_default()
    }

    fn in_flight(&mut self, service: &str, color: Color, requests: u64) {
        assert_eq!(color, Color::Blue);
        self.counts_of(service).blue.in_flight.requests = requests;
    }

    fn admitted(&mut self, service: &str, color: Color, at_ns: u64) {
        assert_eq!(color, Color::Blue);
        self.counts_of(service).blue.last_admission_ns = Some(at_ns);
    }

    fn evidence(&self, epoch: u64, service: &str) -> greenlight_gate::ServiceEvidence {
        let control = &self.process.control;
        control.evidence(epoch, &self.counts, None)[service].clone()
    }

    /// With what a follower says that it has counted.
    fn evidence_with(
        &self,
        epoch: u64,
        service: &str,
        follower: &Self,
    ) -> greenlight_gate::ServiceEvidence {
        let others = follower.own_counts();
        let control = &self.process.control;
        control.evidence(epoch, &self.counts, Some(&others))[service].clone()
    }
}

fn hold(epoch: u64, services: &[&str]) -> Command<()> {
    Command::Hold(HoldRequest {
        epoch,
        services: services.iter().map(ToString::to_string).collect(),
        max_hold_ms: 2_000,
        on_uncertain: OnUncertain::ServeOld,
        exclusive_ms: None,
    })
}

fn open(epoch: u64, services: &[&str], color: Color) -> Command<()> {
    let services = services
        .iter()
        .map(|name| ((*name).to_owned(), Some(color)));
    Command::Open(OpenRequest {
        epoch,
        services: services.collect(),
    })
}

fn park(epoch: u64, services: &[&str]) -> Command<()> {
    Command::Park(ServicesRequest {
        epoch,
        services: services.iter().map(ToString::to_string).collect(),
    })
}

// ---- Openings that wait for followers, and what comes between ----

// G4: the new release died while followers were told of the opening; the agent parks it.
#[test]
fn what_is_parked_while_an_opening_waits_for_followers_stays_parked() {
    let mut leader = leader_with_follower();
    let held = leader.command(hold(1, &[SHOP]));
    complete_hold(&mut leader, held);
    let flip = leader.command(open(1, &[SHOP], Color::Green));
    let parked = leader.command(park(1, &[SHOP]));
    leader.event(replicated(parked, true));
    assert_eq!(leader.answer(parked), Some(Ok(Answer::Done)));

    leader.event(replicated(flip, true));

    assert!(
        matches!(leader.process.routes[SHOP], Route::Held(_)),
        "{:?}",
        leader.process.routes[SHOP]
    );
}

// G1: the agent that asked first has restarted, and asks again.
#[test]
fn an_opening_that_is_repeated_waits_until_followers_have_noted_it() {
    let mut leader = leader_with_follower();
    let held = leader.command(hold(1, &[SHOP]));
    complete_hold(&mut leader, held);
    let first = leader.command(open(1, &[SHOP], Color::Green));

    leader.command(open(1, &[SHOP], Color::Green));

    assert_eq!(leader.process.routes[SHOP], Route::Held(Some(Color::Blue)));
    leader.event(replicated(first, true));
    assert_eq!(leader.process.routes[SHOP], Route::Open(Color::Green));
}

// G3: an opening kills the deadline of what it never opens.
#[test]
fn an_opening_that_is_refused_after_its_note_leaves_the_deadline_running() {
    let mut leader = leader_with_follower();
    let held = leader.command(hold(1, &[SHOP, MAIL]));
    complete_hold(&mut leader, held);
    let flip = leader.command(open(1, &[SHOP, MAIL], Color::Green));
    let newer = leader.command(hold(2, &[MAIL]));
    leader.event(counted(newer));
    leader.event(replicated(flip, true));
    assert!(matches!(leader.answer(flip), Some(Err(_))));

    leader.pass_deadlines();

    assert_eq!(leader.process.routes[SHOP], Route::Shed(Some(Color::Blue)));
}

// G3: the same, with a follower that is silent.
#[test]
fn an_opening_that_followers_do_not_obey_leaves_other_deadlines_running() {
    let mut leader = leader_with_follower();
    let held = leader.command(hold(1, &[SHOP]));
    complete_hold(&mut leader, held);
    let flip = leader.command(open(1, &[SHOP, MAIL], Color::Green));
    leader.event(replicated(flip, false));
    assert_eq!(leader.answer(flip), Some(Err(Refusal::FollowerSilent)));

    leader.pass_deadlines();

    assert_eq!(leader.process.routes[SHOP], Route::Open(Color::Blue));
    let successor = leader.command(Command::HandOver);
    assert_eq!(leader.answer(successor), Some(Ok(Answer::Done)));
}

// G3: closing before a flip that is refused in the end.
#[test]
fn an_opening_that_is_refused_after_it_closed_opens_what_it_closed() {
    let mut leader = leader_with_follower();
    let flip = leader.command(open(1, &[SHOP, MAIL], Color::Green));
    let newer = leader.command(hold(2, &[MAIL]));
    leader.event(counted(newer));
    leader.event(replicated(flip, true));
    leader.event(GateEvent::NoneAdmitting { ticket: flip });
    assert!(matches!(leader.answer(flip), Some(Err(_))));

    assert_eq!(leader.process.routes[SHOP], Route::Open(Color::Blue));
}

// G1: an expired hold is noted without followers, and must be with them.
#[test]
fn a_flip_after_an_expired_hold_is_noted_with_followers_too() {
    let mut leader = leader_with_follower();
    let held = leader.command(hold(1, &[SHOP]));
    complete_hold(&mut leader, held);
    leader.pass_deadlines();
    assert_eq!(leader.process.routes[SHOP], Route::Open(Color::Blue));
    let flip = leader.command(open(1, &[SHOP], Color::Green));
    leader.event(replicated(flip, true));
    // Carried out as far as the flip, and no further.
    leader.process.take(
        GateEvent::NoneAdmitting { ticket: flip },
        100,
        &leader.counts,
    );
    while leader.process.routes[SHOP] != Route::Open(Color::Green) {
        if leader.step().is_none() {
            leader.event(replicated(flip, true));
        }
    }

    leader.restart();

    assert_ne!(leader.process.routes[SHOP], Route::Open(Color::Blue));
}

// A command that is never answered: an exclusive hold that gave up asks its followers without a
// limit, and the deadline is gone.
#[test]
fn a_hold_that_gave_up_asks_followers_for_a_limited_time() {
    let mut leader = leader_with_follower();
    let Command::Hold(request) = hold(1, &[SHOP]) else {
        unreachable!("it is a hold")
    };
    let held = leader.command(Command::Hold(HoldRequest {
        exclusive_ms: Some(5),
        ..request
    }));
    leader.event(counted(held));
    leader.event(replicated(held, true));
    leader.event(GateEvent::NoneAdmitting { ticket: held });
    leader.event(GateEvent::NoRequests {
        ticket: held,
        in_time: false,
    });
    leader.event(replicated(held, true));
    leader.pass_deadlines();

    let Some(Done::Waits { what, .. }) = leader
        .done
        .iter()
        .rev()
        .find(|d| matches!(d, Done::Waits { .. }))
    else {
        panic!("it waits")
    };
    assert!(
        leader.answer(held).is_some() || matches!(what, Awaited::Counts { within_ms: 500 }),
        "{what:?}"
    );
}

// A command that is never answered: nothing would ever be handed over again.
#[test]
fn a_hold_without_a_deadline_waits_for_a_follower_for_a_limited_time() {
    let mut leader = leader_with_follower();
    let defined = leader.define("third");
    leader.event(replicated(defined, true));
    let held = leader.command(hold(1, &["third"]));
    leader.event(GateEvent::Counted {
        ticket: held,
        others: None,
    });
    leader.event(GateEvent::NoneAdmitting { ticket: held });
    assert_eq!(leader.armed, []);
    let Some(Done::Replicates { waits, .. }) = leader
        .done
        .iter()
        .rev()
        .find(|done| matches!(done, Done::Replicates { .. }))
    else {
        panic!("its follower is told")
    };
    // Later than any deadline of the hold.
    assert_eq!(*waits, Some((held, 4_000)));

    leader.event(replicated(held, false));

    assert_eq!(leader.answer(held), Some(Err(Refusal::FollowerSilent)));
    let successor = leader.command(Command::HandOver);
    assert_eq!(leader.answer(successor), Some(Ok(Answer::Done)));
}

#[test]
fn a_hold_that_its_deadline_does_not_end_counts_what_followers_say_in_a_limited_time() {
    let mut leader = leader_with_follower();
    let defined = leader.define("third");
    leader.event(replicated(defined, true));
    let held = leader.command(hold(1, &["third"]));
    leader.event(counted(held));
    leader.event(GateEvent::NoneAdmitting { ticket: held });
    leader.event(replicated(held, true));
    let Some(Done::Waits { what, .. }) = leader.done.last() else {
        panic!("it waits")
    };
    assert_eq!(*what, Awaited::Counts { within_ms: 4_000 });

    leader.event(GateEvent::Counted {
        ticket: held,
        others: None,
    });

    assert!(matches!(leader.answer(held), Some(Ok(Answer::Held(_)))));
}

// ---- What a restart comes back with ----

// G3: what serves must not be held by a restart, when no one is there any more who would open it.
#[test]
fn a_hold_that_gave_up_is_not_on_again_after_a_restart() {
    let mut bench = Bench::open();
    let Command::Hold(request) = hold(1, &[SHOP]) else {
        unreachable!("it is a hold")
    };
    let held = bench.command(Command::Hold(HoldRequest {
        exclusive_ms: Some(5),
        ..request
    }));
    bench.event(GateEvent::NoneAdmitting { ticket: held });
    bench.done.clear();
    bench.event(GateEvent::NoRequests {
        ticket: held,
        in_time: false,
    });
    assert_eq!(bench.steps(), ["route", "persist", "reply"]);

    bench.restart();

    assert_eq!(bench.process.routes[SHOP], Route::Open(Color::Blue));
    assert_eq!(bench.armed, []);
}

#[test]
fn a_process_that_ended_while_it_closed_for_an_opening_serves_what_it_served() {
    let mut leader = leader_with_follower();
    leader.command(open(1, &[SHOP], Color::Green));
    // What another command has written says that it is closed.
    leader.command(park(1, &[MAIL]));
    assert!(matches!(
        leader.file.written.services[SHOP].mode,
        Mode::Closing { .. }
    ));

    leader.restart();

    assert_eq!(leader.process.routes[SHOP], Route::Open(Color::Blue));
    assert_eq!(
        leader.file.written.services[SHOP].mode,
        Mode::Open { color: Color::Blue }
    );
}

#[test]
fn what_closed_for_an_opening_that_is_refused_is_written_as_open() {
    let mut leader = leader_with_follower();
    let flip = leader.command(open(1, &[SHOP], Color::Green));
    leader.command(park(1, &[MAIL]));
    leader.event(replicated(flip, false));
    assert_eq!(leader.answer(flip), Some(Err(Refusal::FollowerSilent)));

    assert_eq!(
        leader.file.written.services[SHOP].mode,
        Mode::Open { color: Color::Blue }
    );
}

// ---- Whose totals are told ----

#[test]
fn the_evidence_of_a_cut_over_outlives_the_removal_of_its_service() {
    let mut bench = Bench::held(1);
    bench.counts_of(SHOP).held = 7;
    bench.command(open(1, &[SHOP, MAIL], Color::Green));
    assert_eq!(bench.evidence(1, SHOP).held, 7);
    bench.remove(SHOP);
    // Its gate is gone.
    bench.counts.remove(SHOP);
    assert_eq!(bench.evidence(1, SHOP).held, 7);
    bench.define(SHOP);
    assert_eq!(bench.evidence(1, SHOP).held, 7);
    bench.command(open(2, &[SHOP], Color::Green));
    bench.command(hold(3, &[SHOP]));

    assert_eq!(bench.evidence(1, SHOP).held, 7);
    assert_eq!(bench.evidence(3, SHOP).held, 0);
}

#[test]
fn before_a_service_is_removed_followers_say_what_they_have_counted() {
    let mut leader = leader_with_follower();
    let held = leader.command(hold(1, &[SHOP]));
    complete_hold(&mut leader, held);
    leader.counts_of(SHOP).held = 2;
    let removed = leader.remove(SHOP);
    assert!(leader.process.routes.contains_key(SHOP));

    let others = Some(told(1, 3));
    let ticket = removed;
    leader.event(GateEvent::Counted { ticket, others });
    leader.event(replicated(removed, true));

    assert_eq!(leader.answer(removed), Some(Ok(Answer::Done)));
    assert_eq!(leader.process.routes.get(SHOP), None);
    assert_eq!(leader.evidence(1, SHOP).held, 5);
}

#[test]
fn a_service_that_is_removed_twice_at_once_is_removed_once() {
    let mut leader = leader_with_follower();
    let first = leader.remove(SHOP);
    let second = leader.remove(SHOP);
    leader.event(counted(first));
    leader.event(counted(second));

    let service = SHOP.to_owned();
    let refusal = Refusal::Unknown { service };
    assert_eq!(leader.answer(second), Some(Err(refusal)));
    leader.event(replicated(first, true));
    assert_eq!(leader.answer(first), Some(Ok(Answer::Done)));
}

#[test]
fn the_totals_of_a_follower_that_ended_before_it_was_told_are_not_of_the_new_cut_over() {
    let mut leader = leader_with_follower();
    let held = leader.command(hold(1, &[SHOP]));
    leader.event(counted(held));
    let mut before = told(0, 5);
    let expired = Counts {
        expired: 1,
        ..Counts::default()
    };
    before.add(SHOP, 0, &expired);
    leader.command(Command::FollowerEnded {
        follower: "first".to_owned(),
        counts: before,
    });

    let seen = leader.evidence(1, SHOP);
    assert_eq!((seen.held, seen.expired), (0, false));
}

#[test]
fn a_follower_that_was_not_told_of_a_cut_over_begins_its_totals_with_the_next_message() {
    let mut leader = Bench::open();
    let mut follower = leader.hand_over();
    follower.obey(&leader);
    let first = leader.command(hold(1, &[SHOP]));
    complete_hold(&mut leader, first);
    follower.obey(&leader);
    follower.counts_of(SHOP).held = 5;
    leader.command(open(1, &[SHOP], Color::Blue));
    // Lost: the messages of this hold.
    let second = leader.command(hold(2, &[SHOP]));
    leader.event(GateEvent::Counted {
        ticket: second,
        others: Some(follower.own_counts()),
    });
    assert_eq!(leader.evidence_with(1, SHOP, &follower).held, 5);
    assert_eq!(leader.evidence_with(2, SHOP, &follower).held, 0);
    leader.pass_deadlines();

    follower.done.clear();
    follower.obey(&leader);

    assert!(follower.steps().contains(&"reset"));
    follower.counts_of(SHOP).held = 4;
    assert_eq!(leader.evidence_with(2, SHOP, &follower).held, 4);
    follower.done.clear();
    follower.obey(&leader);
    assert!(!follower.steps().contains(&"reset"), "they have begun");
}

// The leader ends after it has written the hold down and before its follower was told.
#[test]
fn a_leader_that_restarts_in_a_hold_has_its_followers_begin_their_totals_anew() {
    let mut leader = Bench::open();
    let mut follower = leader.hand_over();
    follower.obey(&leader);
    follower.counts_of(SHOP).held = 5;
    let held = leader.command(hold(1, &[SHOP]));
    leader.process.take(counted(held), 100, &leader.counts);
    while leader.step() != Some("persist") {}

    let kept = leader.file.written.clone();
    let mut leader = Bench::with(GateProcess::restarted(9, kept, GateMutant::None));
    let followers = ["first".to_owned()].into();
    leader.event(GateEvent::Started { followers });
    assert_eq!(leader.evidence_with(1, SHOP, &follower).held, 0);
    let held = leader.command(hold(1, &[SHOP]));
    leader.event(counted(held));

    follower.done.clear();
    follower.obey(&leader);

    assert!(follower.steps().contains(&"reset"));
}

/// A leader with one follower, both services open to blue.
fn leader_with_follower() -> Bench {
    let mut leader = Bench::open();
    let _follower = leader.hand_over();
    leader.done.clear();
    leader
}

/// Of `shop`, what a follower says that has so many held requests in its totals of a cut-over.
fn told(cut_over: u64, held: u64) -> CountsByCutOver {
    let mut told = CountsByCutOver::default();
    let counts = Counts {
        held,
        ..Counts::default()
    };
    told.add(SHOP, cut_over, &counts);
    told
}

fn replicated(ticket: Ticket, in_time: bool) -> GateEvent<()> {
    GateEvent::Replicated { ticket, in_time }
}

fn counted(ticket: Ticket) -> GateEvent<()> {
    let others = Some(CountsByCutOver::default());
    GateEvent::Counted { ticket, others }
}

fn complete_hold(leader: &mut Bench, ticket: Ticket) {
    leader.event(counted(ticket));
    leader.event(replicated(ticket, true));
    leader.event(GateEvent::NoneAdmitting { ticket });
    leader.event(counted(ticket));
    assert!(matches!(leader.answer(ticket), Some(Ok(Answer::Held(_)))));
}
