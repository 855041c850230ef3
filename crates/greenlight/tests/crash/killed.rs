//! Real crashes: `kill -9` of the server, an agent, the command line, the proxy and the new
//! application, at every point of a deployment, under continuous load of all kinds.
//!
//! After each: no failed request and no stale answer, one release on the whole fleet, nothing
//! left behind, and the next deployment works.

use super::fleet::until;
use super::machine;
use super::scene::{Kind, Scene};
use super::traffic::{Excused, Went};
use greenlight_shell::clock::monotonic_ns;

/// A deployment has more points than this for each role; with fewer, they were not found.
const FEWEST_POINTS: usize = 40;
/// The same for those that only a bad release has.
const FEWEST_ONLY_HERE: usize = 4;
/// Each end that a deployment can have is the end at more points than this.
const FEWEST_OF_AN_END: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_killed_at_any_effect_of_a_deployment_harms_nobody() {
    let mut scene = Scene::start().await;
    let points = scene.enumerate("server", Kind::Good).await;
    for point in &points {
        let Some((went, code)) = scene.crash("server", point).await else {
            continue;
        };

        // G5: what is on the disk when it dies is what happens. What this run passed tells that,
        // because a timer may be set before a record in one run and after it in another.
        let points = scene.fleet.points("server");
        let has = |name: &str| points.has_passed(name);
        let durable = if has("persist Committed#1 after") {
            Went::Forward
        } else if has("persist CutOverStarted#1 after") || !has("persist Accepted#1 after") {
            Went::Nowhere
        } else {
            // Accepted, and nobody was told yet: it begins again.
            Went::Forward
        };
        assert_eq!(went, durable, "{point}");
        let unknown = code == Some(4) && !has("answer#1 after");
        let told = code == Some(i32::from(went != Went::Forward));
        assert!(told || unknown, "{point}: {went:?} was told as {code:?}");
    }
    assert!(scene.came_up() >= FEWEST_POINTS, "{points:?}");
    assert_eq!(scene.end("the server killed").await, 0); // G3
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_at_any_effect_of_a_deployment_harms_nobody() {
    let mut scene = Scene::start().await;
    let points = scene.enumerate("agent-b", Kind::Good).await;
    for point in &points {
        let Some((went, code)) = scene.crash("agent-b", point).await else {
            continue;
        };

        // Nobody is told to open before the decision is durable.
        let points = scene.fleet.points("agent-b");
        if points.has_passed("Gate Open#1 before") {
            assert_eq!(went, Went::Forward, "{point}");
        }
        assert_eq!(code, Some(i32::from(went != Went::Forward)), "{point}");
    }
    assert!(scene.came_up() >= FEWEST_POINTS, "{points:?}");
    assert_eq!(scene.end("an agent killed").await, 0); // G3
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_killed_at_any_effect_of_a_rollback_harms_nobody() {
    killed_during_a_rollback("server").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_at_any_effect_of_a_rollback_harms_nobody() {
    killed_during_a_rollback("agent-b").await;
}

/// Kills a role at every effect that a deployment has only when its release is bad.
async fn killed_during_a_rollback(role: &str) {
    let mut scene = Scene::start().await;
    let good = scene.enumerate(role, Kind::Good).await;

    for (kind, end) in [
        (Kind::FailsToStart, Went::Nowhere),
        (Kind::DiesInTheWatch, Went::ForwardAndBack),
    ] {
        let points = scene.enumerate(role, kind).await;
        let only_here: Vec<_> = points.iter().filter(|p| !good.contains(p)).collect();
        let earlier = scene.came_up();
        for point in only_here {
            let Some(outcome) = scene.crash(role, point).await else {
                continue;
            };
            let logs = || scene.fleet.logs();
            assert_eq!(outcome, (end, Some(1)), "{kind:?}, {point}\n{}", logs()); // G2, G5
        }
        assert!(scene.came_up() - earlier >= FEWEST_ONLY_HERE, "{points:?}");
    }

    scene.end(&format!("{role} killed during a rollback")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_outlives_its_command_killed_at_any_effect() {
    let mut scene = Scene::start().await;
    let points = scene.enumerate("server", Kind::Good).await;
    for point in &points {
        let paused = scene.begin_paused("server", point, "the command killed");
        let Some(mut begun) = paused.await else {
            continue;
        };
        let points = scene.fleet.points("server");
        let said = begun.deploy.said();
        let answered = points.has_passed("answer#1 after");
        assert!(answered || !said.contains("started"), "{point}: {said}");

        begun.deploy.kill();

        // G8: nobody starts it again, and it goes on to its end.
        scene.fleet.resume("server");
        let (went, code) = scene.finish(begun, Excused::Nothing).await;
        assert_eq!(went, Went::Forward, "{point}");
        let was_over = points.has_passed("persist Finished#1 after") && code == Some(0);
        assert!(was_over || code.is_none(), "{point}: {code:?}");
    }
    assert!(scene.came_up() >= FEWEST_POINTS, "{points:?}");
    assert_eq!(scene.end("the command killed").await, 0); // G3
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_killed_command_the_same_one_attaches_and_another_is_refused() {
    let mut scene = Scene::start().await;
    scene.fleet.configure(&[("STARTUP_MS", "1500")]);
    let mut begun = scene.begin("the command killed and given again");
    assert!(begun.deploy.says(": preparing").await);
    let version = begun.deploy.version.clone();
    begun.deploy.kill();

    let mut again = scene.fleet.deploy_again(&version);
    let other = scene.fleet.deploy_again("another").ended().await;

    assert!(again.says("attached to deployment").await);
    assert_eq!(other.code, Some(3), "{}", other.said);
    for part in [&*version, "being deployed by a person@", "since 20", "UTC"] {
        assert!(other.said.contains(part), "no `{part}` in: {}", other.said);
    }
    assert_eq!(again.ended().await.code, Some(0)); // G8
    let (went, _) = scene.finish(begun, Excused::Nothing).await;
    assert_eq!(went, Went::Forward);
    assert_eq!(scene.end("the command given again").await, 0); // G3
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_application_killed_at_any_effect_takes_the_fleet_back() {
    let mut scene = Scene::start().await;

    scene.fleet.configure(&[("STARTUP_MS", "500")]);
    let begun = scene.begin("the new application killed while it starts");
    let version = &begun.deploy.version;
    machine::kill(scene.fleet.application("b", version).await).await;
    let outcome = scene.finish(begun, Excused::Nothing).await;
    assert_eq!(outcome, (Went::Nowhere, Some(1))); // G2
    scene.fleet.configure(&[]);

    let points = scene.enumerate("server", Kind::Good).await;
    let mut ends = Vec::new();
    for point in points.iter().skip_while(|point| *point != TOLD_TO_START) {
        match &**point {
            // Where it must be noticed in the watch, that must outlast any pause.
            "persist Completed#1 before" => scene.fleet.configure_watched(&[], "1s"),
            "persist Finished#1 before" => scene.fleet.configure(&[]),
            _ => {}
        }
        ends.extend(kill_new(&mut scene, point).await);
    }
    for end in [Went::Nowhere, Went::ForwardAndBack, Went::Forward] {
        let times = ends.iter().filter(|went| **went == end).count();
        assert!(times >= FEWEST_OF_AN_END, "{ends:?}");
    }

    let from_ns = monotonic_ns();
    let live = scene.fleet.live().to_owned();
    let killed = scene.fleet.application("b", &live).await;
    machine::kill(killed).await;
    until("it was started again", async || {
        scene.fleet.application("b", &live).await != killed
    })
    .await;
    let title = "the live application killed outside any deployment";
    scene.disturbed(title, from_ns, Excused::PostsInHand).await;

    let served = ends.iter().filter(|went| **went != Went::Nowhere).count();
    let failed = scene.end("the new application killed").await;
    assert!(failed <= (served + 1) * IN_HAND, "{failed} failed");
}

/// From here on an application may run on `b`.
const TOLD_TO_START: &str = "send Prepare to b#1 after";
/// More POSTs than these are never in the hands of one application here.
const IN_HAND: usize = 8;

/// Kills the new application of `b` while the server is paused at a point. Returns how the
/// deployment went, unless the point did not come up, or no application ran there.
async fn kill_new(scene: &mut Scene, point: &str) -> Option<Went> {
    let paused = scene.begin_paused("server", point, "the new application killed");
    let begun = paused.await?;
    let points = scene.fleet.points("server");
    let has = |name: &str| points.has_passed(name);
    // What it was told may reach the agent only when the server goes on.
    let (fleet, version) = (&scene.fleet, &*begun.deploy.version);
    let new = match has("send CheckPeers to a#1 before") {
        true => Some(fleet.application("b", version).await),
        false => fleet.application_soon("b", version).await,
    };
    if let Some(new) = new {
        let killed = fleet.killed("b");
        machine::kill(new).await;
        // Else the cut-over could be over before the agent looks.
        let seen = async || fleet.killed("b") > killed;
        until("the agent has seen it die", seen).await;
    }
    fleet.resume("server");

    // Before it is opened to it has no request in its hands, so not even a POST may fail.
    let excused = match has("send Switch to b#1 after") {
        true => Excused::PostsInHand,
        false => Excused::Nothing,
    };
    let (went, code) = scene.finish(begun, excused).await;
    new?;
    let may_end: &[_] = if has("persist Finished#1 before") {
        // It is started again, and the release stays; the fleet has settled with it.
        &[Went::Forward]
    } else if has("send QueryStatus to b#1 after") {
        // That it is well may have been said before it died.
        &[Went::ForwardAndBack, Went::Forward]
    } else if has("persist Committed#1 before") {
        &[Went::ForwardAndBack]
    } else if has("send Hold to b#1 after") {
        // Its gate may have been held before it died: then the fleet goes forward, and back.
        &[Went::Nowhere, Went::ForwardAndBack]
    } else {
        &[Went::Nowhere]
    };
    assert!(may_end.contains(&went), "{point}: {went:?}"); // G2
    assert_eq!(code, Some(i32::from(went != Went::Forward)), "{point}");
    Some(went)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_proxy_comes_back_as_it_was() {
    let mut scene = Scene::start().await;

    for (role, point, gate, went) in [
        // Held, and the server does not know it yet.
        ("agent-b", "Report Held#1 before", "held", None),
        ("server", "persist Committed#1 before", "held", None),
        (
            "server",
            "persist Committed#1 after",
            "held",
            Some(Went::Forward),
        ),
        (
            "server",
            "persist Completed#1 before",
            "open",
            Some(Went::Forward),
        ),
    ] {
        let points = scene.fleet.points(role);
        points.pause_at(point);
        let begun = scene.begin(&format!("the proxy killed, {role} at `{point}`"));
        scene.fleet.paused(role).await;
        until("the gate is as it should", async || {
            scene.fleet.gate("b").await.as_deref() == Some(gate)
        })
        .await;

        let until_ns = kill_proxy(&scene).await;

        // G1: held until the decision, or open to what was decided.
        assert_eq!(
            scene.fleet.gate("b").await.as_deref(),
            Some(gate),
            "{point}"
        );
        scene.fleet.resume(role);
        let excused = Excused::Connections { until_ns };
        let (did, code) = scene.finish(begun, excused).await;
        assert!(went.is_none_or(|went| went == did), "{point}: {did:?}");
        assert_eq!(code, Some(i32::from(did != Went::Forward)), "{point}");
    }

    let from_ns = monotonic_ns();
    // What the proxy loses must have been sent since then: not at the end of the deployment.
    let (before, _) = scene.traffic.progress();
    until("what was sent earlier is answered", async || {
        scene.traffic.progress().0 > before + 100
    })
    .await;
    let until_ns = kill_proxy(&scene).await;
    let excused = Excused::Connections { until_ns };
    let title = "the proxy killed outside any deployment";
    scene.disturbed(title, from_ns, excused).await;

    let failed = scene.end("the proxy killed").await;
    assert!(failed > 0, "the proxy was not killed at all");
}

/// Kills the proxy of `b`, and returns when the next one answers. A request that was sent after
/// that time has no excuse.
async fn kill_proxy(scene: &Scene) -> u64 {
    let killed = scene.fleet.pid("proxy-b");
    scene.fleet.kill("proxy-b");
    until("another proxy answers", async || {
        scene.fleet.pid("proxy-b") != killed && scene.fleet.gate("b").await.is_some()
    })
    .await;
    monotonic_ns()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_goes_on_while_server_and_agents_are_dead() {
    let mut scene = Scene::start().await;

    let from_ns = monotonic_ns();
    dead_for_a_while(&scene).await;
    scene
        .disturbed("all dead outside any deployment", from_ns, Excused::Nothing)
        .await;

    scene.fleet.configure(&[("STARTUP_MS", "1500")]);
    let mut begun = scene.begin("all dead while preparing");
    assert!(begun.deploy.says(": preparing").await);
    dead_for_a_while(&scene).await;
    let outcome = scene.finish(begun, Excused::Nothing).await;
    assert_eq!(outcome, (Went::Nowhere, Some(1)));
    scene.fleet.configure(&[]);

    let mut begun = scene.begin("all dead in the watch");
    assert!(begun.deploy.says(": watching").await);
    dead_for_a_while(&scene).await;
    let outcome = scene.finish(begun, Excused::Nothing).await;
    assert_eq!(outcome, (Went::Forward, Some(0)));

    for (point, went) in [
        ("persist Committed#1 before", Went::Nowhere),
        ("persist Committed#1 after", Went::Forward),
    ] {
        let points = scene.fleet.points("server");
        points.pause_at(point);
        let begun = scene.begin(&format!("all killed at `{point}`"));
        scene.fleet.paused("server").await;
        for role in ["agent-a", "agent-b", "server"] {
            scene.fleet.kill(role);
        }
        let (did, _) = scene.finish(begun, Excused::Nothing).await;
        assert_eq!(did, went, "{point}"); // G5
    }

    assert_eq!(scene.end("all dead").await, 0); // G3, G9
}

/// Server and agents are killed, and for some hundred requests nobody starts them again.
async fn dead_for_a_while(scene: &Scene) {
    scene.fleet.neglect();
    for role in ["server", "agent-a", "agent-b"] {
        scene.fleet.kill(role);
    }
    let (before, _) = scene.traffic.progress();
    until("users were served", async || {
        scene.traffic.progress().0 > before + 300
    })
    .await;
    assert!(
        scene.fleet.status().await.is_none(),
        "the server is not dead"
    );
    scene.fleet.supervise();
}
