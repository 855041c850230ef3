//! One test's fleet and traffic, and deployments one after the other, each looked at as a whole.

use super::command::{Deploy, Ended};
use super::failpoints::{is_certain, merged};
use super::fleet::{Fleet, until};
use super::traffic::{Excused, Run, Traffic, Went};
use greenlight_protocol::Outcome;
use greenlight_shell::clock::monotonic_ns;
use std::time::Instant;

/// How often a point may fail to come up before its test fails: which resends and questions
/// there are is a matter of time.
const TRIES: u32 = 3;

/// For so many points that come up, one may fail to, because nothing was late.
const COME_UP_OF_ONE: usize = 4;
/// Of so many holds, one at least must have met a request.
const HOLDS_OF_ONE_THAT_MET: usize = 4;

/// A fleet, the traffic to it, and deployments one after the other.
pub(crate) struct Scene {
    pub(crate) fleet: Fleet,
    pub(crate) traffic: Traffic,
    kind: Kind,
    began: Instant,
    runs: usize,
    /// How many points have come up at which something was to be done.
    came_up: usize,
    /// Those that have not.
    missed: Vec<String>,
}

impl Scene {
    pub(crate) async fn start() -> Self {
        let began = Instant::now();
        let fleet = Fleet::start().await;
        let traffic = Traffic::start(&fleet.targets());
        Self {
            fleet,
            traffic,
            kind: Kind::Good,
            began,
            runs: 0,
            came_up: 0,
            missed: Vec::new(),
        }
    }

    /// From here on releases are of this kind.
    pub(crate) fn releases(&mut self, kind: Kind) {
        self.kind = kind;
        match kind {
            Kind::Good => self.fleet.configure(&[]),
            Kind::FailsToStart => self.fleet.configure(&[("FAIL_START_ON", "b")]),
            // The agent that was killed must be back before the watch is over.
            Kind::DiesInTheWatch => {
                let env = [("DIE_ON", "b"), ("DIE_AFTER_MS", "30")];
                self.fleet.configure_watched(&env, "1h");
            }
        }
    }

    /// The points that a role passes in deployments of a kind, in order: those that must come up
    /// again in any of two deployments, and others in both.
    pub(crate) async fn enumerate(&mut self, role: &str, kind: Kind) -> Vec<String> {
        self.releases(kind);
        let first = self.count(role).await;
        let second = self.count(role).await;
        let (points, left_out): (Vec<_>, Vec<_>) = merged(&first, &second)
            .into_iter()
            .partition(|p| is_certain(p) || (first.contains(p) && second.contains(p)));
        let count = points.len();
        eprintln!("{role}, {kind:?}: {count} points: {points:?}; seen only once: {left_out:?}");
        points
    }

    async fn count(&mut self, role: &str) -> Vec<String> {
        let points = self.fleet.points(role);
        points.count();
        let (went, _) = self.deploy("a deployment that nothing disturbs").await;
        points.withdraw();
        assert_eq!(went, self.kind.goes());
        points.passed()
    }

    /// Deploys while a role kills itself at a point. `None` if it is one of those that only time
    /// brings up, and time did not.
    pub(crate) async fn crash(&mut self, role: &str, point: &str) -> Option<(Went, Option<i32>)> {
        for _ in 0..TRIES {
            let points = self.fleet.points(role);
            let killed = self.fleet.pid(role);
            points.kill_at(point);
            let begun = self.begin(&format!("{role} killed at `{point}`"));
            let ended = begun.deploy.ended().await;
            self.fleet.settled().await;
            let reached = points.withdraw();
            if reached {
                // A point at the very end may come when all looks settled.
                until("it is started again", async || {
                    self.fleet.pid(role) != killed
                })
                .await;
            }
            let outcome = self.judge(begun.told, &ended, self.kind.excuses()).await;
            if reached {
                self.came_up += 1;
                return Some(outcome);
            }
            let passed = points.passed();
            eprintln!("{role}: `{point}` did not come up among {passed:?}");
        }
        self.miss(role, point);
        None
    }

    /// Begins a deployment, and returns when a role has paused itself at a point: the test kills
    /// something else then, resumes the role and finishes. `None` as for [`Scene::crash`].
    pub(crate) async fn begin_paused(
        &mut self,
        role: &str,
        point: &str,
        title: &str,
    ) -> Option<Begun> {
        for _ in 0..TRIES {
            let points = self.fleet.points(role);
            points.pause_at(point);
            let mut begun = self.begin(&format!("{title}, {role} at `{point}`"));
            let came_up = tokio::select! {
                () = points.reached() => true,
                () = self.rest(&mut begun) => points.withdraw(),
            };
            if came_up {
                self.fleet.paused(role).await;
                self.came_up += 1;
                return Some(begun);
            }
            self.finish(begun, self.kind.excuses()).await;
        }
        self.miss(role, point);
        None
    }

    async fn rest(&mut self, begun: &mut Begun) {
        begun.deploy.code().await;
        self.fleet.settled().await;
    }

    fn miss(&mut self, role: &str, point: &str) {
        assert!(
            !is_certain(point),
            "{role}: `{point}` did not come up in {TRIES} deployments"
        );
        self.missed.push(format!("{role} `{point}`"));
    }

    /// How many points have come up at which something was to be done.
    pub(crate) fn came_up(&self) -> usize {
        self.came_up
    }

    /// A whole deployment, looked at when the fleet has come to rest. Returns how it went and
    /// the exit code.
    pub(crate) async fn deploy(&mut self, title: &str) -> (Went, Option<i32>) {
        let begun = self.begin(title);
        self.finish(begun, self.kind.excuses()).await
    }

    /// Begins a deployment that the test disturbs.
    pub(crate) fn begin(&mut self, title: &str) -> Begun {
        let old = self.fleet.live().to_owned();
        let from_ns = monotonic_ns();
        let deploy = self.fleet.deploy();
        let told = Told {
            title: title.to_owned(),
            old,
            new: deploy.version.clone(),
            from_ns,
        };
        Begun { told, deploy }
    }

    /// Waits until the fleet has come to rest, and looks at what users have seen.
    pub(crate) async fn finish(&mut self, begun: Begun, excused: Excused) -> (Went, Option<i32>) {
        let ended = begun.deploy.ended().await;
        self.judge(begun.told, &ended, excused).await
    }

    async fn judge(&mut self, told: Told, ended: &Ended, excused: Excused) -> (Went, Option<i32>) {
        self.fleet.settled().await;
        let Told {
            title,
            old,
            new,
            from_ns,
        } = told;
        let outcome = self.fleet.outcome(&new).await;
        let (code, said) = (ended.code, &ended.said);
        self.fleet.note(format!(
            "{title}: {outcome:?}, exit {code:?}, and it said\n{said}"
        ));
        let went = match self.fleet.live() {
            live if live == new => Went::Forward,
            live if live == old => match outcome {
                Some(Outcome::RolledBack { .. }) => Went::ForwardAndBack,
                _ => Went::Nowhere,
            },
            other => panic!("{title}: `{other}` serves"),
        };
        self.runs += 1;
        self.traffic.ran(Run {
            title: format!("{title}, which said\n{}", ended.said),
            from_ns,
            until_ns: monotonic_ns(),
            old,
            new,
            went,
            excused,
        });
        (went, ended.code)
    }

    /// Looks at what users have seen of something that was no deployment.
    pub(crate) async fn disturbed(&mut self, title: &str, from_ns: u64, excused: Excused) {
        self.fleet.settled().await;
        let live = self.fleet.live().to_owned();
        self.traffic.ran(Run {
            title: title.to_owned(),
            from_ns,
            until_ns: monotonic_ns(),
            old: live.clone(),
            new: live,
            went: Went::Forward,
            excused,
        });
    }

    /// The last deployment is a good one, and then nothing is left. Returns how many requests
    /// failed, with an excuse.
    pub(crate) async fn end(mut self, title: &str) -> usize {
        self.releases(Kind::Good);
        let last = self.deploy("the last deployment").await;
        assert_eq!(last, (Went::Forward, Some(0)));
        let (holds, met) = self.fleet.holds().await;
        let (requests, failed) = self.traffic.stop(&self.fleet.effects());
        self.fleet.stop();
        let (came_up, missed) = (self.came_up, &self.missed);
        eprintln!(
            "{title}: {} deployments in {:.1} s, {requests} requests, {failed} failed; {met} of \
             {holds} holds met some; {came_up} points came up, {} did not: {missed:?}",
            self.runs,
            self.began.elapsed().as_secs_f64(),
            missed.len(),
        );
        // A hold proves little that finds the application dead, or nothing in its hands.
        assert!(
            met > 0 && met * HOLDS_OF_ONE_THAT_MET >= holds,
            "{met} of {holds} holds met a request"
        );
        assert!(
            missed.len() * COME_UP_OF_ONE <= came_up,
            "{came_up} points came up, and these did not: {missed:?}"
        );
        failed
    }
}

/// What a release is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing is wrong with it.
    Good,
    /// It ends at once on `b`.
    FailsToStart,
    /// It ends on `b` soon after it was given its first request, again and again.
    DiesInTheWatch,
}

impl Kind {
    /// How its deployment goes when nothing else happens.
    fn goes(self) -> Went {
        match self {
            Self::Good => Went::Forward,
            Self::FailsToStart => Went::Nowhere,
            Self::DiesInTheWatch => Went::ForwardAndBack,
        }
    }

    fn excuses(self) -> Excused {
        match self {
            Self::Good | Self::FailsToStart => Excused::Nothing,
            Self::DiesInTheWatch => Excused::PostsInHand,
        }
    }
}

/// A deployment that was begun.
pub(crate) struct Begun {
    told: Told,
    pub(crate) deploy: Deploy,
}

/// What a deployment is about.
struct Told {
    title: String,
    old: String,
    new: String,
    from_ns: u64,
}
