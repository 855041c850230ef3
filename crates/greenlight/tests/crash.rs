//! Real crashes: `kill -9` of the server, an agent, the command line, the proxy and the new
//! application, at every point of a deployment, under continuous load of all kinds.
//!
//! After each: no failed request and no stale answer, one release on the whole fleet, nothing
//! left behind, and the next deployment works.

#[path = "crash/fleet.rs"]
mod fleet;
#[path = "crash/points.rs"]
mod points;
#[path = "crash/traffic.rs"]
mod traffic;

use fleet::Fleet;
use greenlight::clock::monotonic_ns;
use std::time::Instant;
use traffic::{Excused, Run, Traffic, Went};

/// How often a point may fail to come up before its test fails: which resends and questions
/// there are is a matter of time.
const TRIES: u32 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_killed_at_any_effect_of_a_deployment_harms_nobody() {
    let mut scene = Scene::start().await;
    let points = scene.enumerate("server").await;
    let at = |name: &str| {
        let position = points.iter().position(|point| point == name);
        position.unwrap_or_else(|| panic!("no `{name}` among {points:?}"))
    };
    let accepted = at("persist Accepted#1 after");
    let begun = at("persist Begun#1 after");
    let committed = at("persist Committed#1 after");
    let answered = at("answer#1 after");

    for (number, point) in points.iter().enumerate() {
        let (went, code) = scene.crash("server", point).await;

        // G5: what is on the disk when it dies is what happens.
        let durable = match number {
            _ if number < accepted => Went::Nowhere,
            // Accepted, and nobody was told yet: it begins again.
            _ if number < begun => Went::Forward,
            _ if number < committed => Went::Nowhere,
            _ => Went::Forward,
        };
        assert_eq!(went, durable, "{point}");
        let unknown = code == Some(4) && number < answered;
        let told = code == Some(i32::from(went != Went::Forward));
        assert!(told || unknown, "{point}: {went:?} was told as {code:?}");
    }
    scene.end("server", &points).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_at_any_effect_of_a_deployment_harms_nobody() {
    let mut scene = Scene::start().await;
    let points = scene.enumerate("agent-b").await;
    let at = |name: &str| {
        let position = points.iter().position(|point| point == name);
        position.unwrap_or_else(|| panic!("no `{name}` among {points:?}"))
    };
    let told = at("Gate Open#1 before");

    for (number, point) in points.iter().enumerate() {
        let (went, code) = scene.crash("agent-b", point).await;

        // Nobody is told to open before the decision is durable.
        if number >= told {
            assert_eq!(went, Went::Forward, "{point}");
        }
        assert_eq!(code, Some(i32::from(went != Went::Forward)), "{point}");
    }
    scene.end("agent-b", &points).await;
}

/// A fleet, the traffic to it, and deployments one after the other.
struct Scene {
    fleet: Fleet,
    traffic: Traffic,
    began: Instant,
}

impl Scene {
    async fn start() -> Self {
        let began = Instant::now();
        let fleet = Fleet::start().await;
        let traffic = Traffic::start(&fleet.targets());
        Self {
            fleet,
            traffic,
            began,
        }
    }

    /// The points that a role passes in every good deployment, in order.
    async fn enumerate(&mut self, role: &str) -> Vec<String> {
        let first = self.count(role).await;
        let second = self.count(role).await;
        let both: Vec<_> = first.into_iter().filter(|p| second.contains(p)).collect();
        assert!(both.len() > 20, "{both:?}");
        eprintln!("{role}: {} points: {both:?}", both.len());
        both
    }

    async fn count(&mut self, role: &str) -> Vec<String> {
        let points = self.fleet.points(role);
        points.count();
        let (went, code) = self.deploy("a deployment that nothing disturbs").await;
        assert_eq!((went, code), (Went::Forward, Some(0)));
        points.passed()
    }

    /// Deploys while a role kills itself at a point.
    async fn crash(&mut self, role: &str, point: &str) -> (Went, Option<i32>) {
        let began = Instant::now();
        for _ in 0..TRIES {
            let points = self.fleet.points(role);
            points.kill_at(point);
            let outcome = self.deploy(&format!("{role} killed at `{point}`")).await;
            eprintln!("{point}: {outcome:?} {:?}", began.elapsed());
            if points.is_reached() {
                return outcome;
            }
            let passed = points.passed();
            eprintln!("{role}: `{point}` did not come up among {passed:?}");
        }
        panic!("{role}: `{point}` did not come up in {TRIES} deployments");
    }

    /// A whole deployment, looked at when the fleet has come to rest.
    async fn deploy(&mut self, title: &str) -> (Went, Option<i32>) {
        let (old, from_ns) = (self.fleet.live().to_owned(), monotonic_ns());
        let deploy = self.fleet.deploy();
        let new = deploy.version.clone();
        let ended = deploy.ended().await;
        self.fleet.settled().await;
        let went = match self.fleet.live() {
            live if live == new => Went::Forward,
            live if live == old => Went::Nowhere,
            other => panic!("{title}: `{other}` serves"),
        };
        self.traffic.ran(Run {
            title: format!("{title}, which said\n{}", ended.said),
            from_ns,
            until_ns: monotonic_ns(),
            old,
            new,
            went,
            excused: Excused::Nothing,
        });
        (went, ended.code)
    }

    /// The last deployment is a good one, and then nothing is left.
    async fn end(mut self, role: &str, points: &[String]) {
        let last = self.deploy("the deployment after all crashes").await;
        assert_eq!(last, (Went::Forward, Some(0)));
        let (requests, failed) = self.traffic.stop(&self.fleet.effects());
        self.fleet.stop().await;
        eprintln!(
            "{role}: {} crashes in {:.1} s, {requests} requests, {failed} failed",
            points.len(),
            self.began.elapsed().as_secs_f64()
        );
        assert_eq!(failed, 0);
    }
}
