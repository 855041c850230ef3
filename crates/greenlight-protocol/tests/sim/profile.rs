//! What kind of run a seed makes: how large a fleet, which faults, how often.

use super::rng::Rng;
use greenlight_gate::GateMutant;
use greenlight_protocol::Mutant;

/// The faults that runs may have, and how likely.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) instances: usize,
    pub(crate) services: usize,
    pub(crate) mutant: Mutant,
    pub(crate) gate_mutant: GateMutant,
    /// How long faults go on, in microseconds.
    pub(crate) chaos: u64,
    /// Messages lost, and messages that arrive twice.
    pub(crate) loss: f64,
    pub(crate) duplicates: f64,
    /// Messages that take up to a second, so that later ones overtake them.
    pub(crate) stragglers: f64,
    /// The usual way of a message, in microseconds.
    pub(crate) delay: u64,
    /// That a process ends right before one of its effects.
    pub(crate) crash_at_effect: f64,
    /// That a proxy ends between the flip of a gate and its record, perhaps with the agent.
    pub(crate) ends_in_flip: f64,
    /// That a proxy is to be replaced in a hold.
    pub(crate) replaced_in_hold: f64,
    /// That a sync fails.
    pub(crate) sync_error: f64,
    /// Mean time between other faults, in microseconds; none if 0.
    pub(crate) between_faults: u64,
    /// Parts in a thousand that clocks may be wrong.
    pub(crate) drift: u64,
    /// Kinds of faults that happen.
    pub(crate) kinds: Vec<Kind>,
    /// That a version does not start somewhere, or dies while it is watched.
    pub(crate) bad_release: f64,
}

/// Which rule is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    Protocol(Mutant),
    Gate(GateMutant),
}

/// A fault that comes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    CoordinatorEnds,
    AgentEnds,
    GateEnds,
    InstanceLosesPower,
    ProxyReplaced,
    Partition,
    Pause,
    ClockJump,
    DiskFull,
    AppDies,
    AppSick,
}

impl Kind {
    fn spares_what_serves(self) -> bool {
        !matches!(
            self,
            Self::GateEnds | Self::InstanceLosesPower | Self::AppDies | Self::AppSick
        )
    }
}

const KINDS: [Kind; 11] = [
    Kind::CoordinatorEnds,
    Kind::AgentEnds,
    Kind::GateEnds,
    Kind::InstanceLosesPower,
    Kind::ProxyReplaced,
    Kind::Partition,
    Kind::Pause,
    Kind::ClockJump,
    Kind::DiskFull,
    Kind::AppDies,
    Kind::AppSick,
];

impl Profile {
    /// The run that belongs to a seed.
    pub(crate) fn of(rng: &mut Rng, broken: Broken) -> Self {
        let (mutant, gate_mutant) = match broken {
            Broken::Nothing => (Mutant::None, GateMutant::None),
            Broken::Protocol(mutant) => (mutant, GateMutant::None),
            Broken::Gate(mutant) => (Mutant::None, mutant),
        };
        let mut kinds: Vec<_> = KINDS.into_iter().filter(|_| rng.hits(0.4)).collect();
        // Every few runs nothing that serves ends by itself: then no request has an excuse to
        // fail but a drain's deadline, or a hold's that sheds.
        let calm = rng.hits(0.2);
        if calm {
            kinds.retain(|kind| kind.spares_what_serves());
        }
        let rates = [0.0, 0.0, 0.001, 0.005, 0.02];
        let mut profile = Self {
            instances: rng.pick(&[1, 2, 2, 3, 3, 4]),
            services: rng.pick(&[1, 1, 2]),
            mutant,
            gate_mutant,
            chaos: rng.micros(15_000_000, 45_000_000),
            loss: rng.pick(&[0.0, 0.0, 0.02, 0.2]),
            duplicates: rng.pick(&[0.0, 0.05, 0.3]),
            stragglers: rng.pick(&[0.0, 0.02, 0.1]),
            delay: rng.pick(&[200, 1_000, 5_000, 30_000]),
            crash_at_effect: rng.pick(&rates),
            ends_in_flip: if calm {
                0.0
            } else {
                rng.pick(&[0.0, 0.0, 0.05, 0.3])
            },
            replaced_in_hold: rng.pick(&[0.0, 0.0, 0.1]),
            sync_error: rng.pick(&rates),
            between_faults: rng.pick(&[700_000, 2_000_000, 6_000_000]),
            drift: rng.pick(&[0, 1, 50, 250]),
            kinds,
            bad_release: if calm {
                0.0
            } else {
                rng.pick(&[0.0, 0.1, 0.3])
            },
        };
        match mutant {
            Mutant::RefuseWithoutPromise => profile.suit_a_hasty_peer(),
            Mutant::ResumeUndecided => profile.suit_late_votes(),
            Mutant::None
            | Mutant::ArmedVolatile
            | Mutant::SwitchBeforeCommit
            | Mutant::ReopenAfterRestart => {}
        }
        match gate_mutant {
            GateMutant::FlipsUnnoted => profile.suit_lonely_gates(),
            GateMutant::HandsOverHeld => profile.suit_replacements_in_holds(),
            GateMutant::SuccessorOpensParked => profile.suit_replacements_of_what_is_parked(),
            GateMutant::None
            | GateMutant::DeadlineEndsParking
            | GateMutant::OpeningStopsOtherDeadlines
            | GateMutant::Unfenced
            | GateMutant::HoldsWhatWasNeverOpened
            | GateMutant::LastAdmissionAsAtTheHold
            | GateMutant::RepeatedHoldForgetsExpiry
            | GateMutant::NotesAlone => {}
        }
        profile
    }

    /// Only clocks that differ by much let a peer ask before the coordinator's budget is over, and
    /// only a hold that comes late meets the question: so rare that it is helped along.
    fn suit_a_hasty_peer(&mut self) {
        self.instances = 3;
        self.drift = 250;
        self.loss = 0.3;
        self.delay = 200;
        self.kinds.clear();
        self.crash_at_effect = 0.0;
        self.sync_error = 0.0;
        self.bad_release = 0.0;
    }

    /// A gate shows what it does by itself if nobody tells it what to do: where proxies end at the
    /// flip, and their agents with them, and where little else keeps a fleet from deploying.
    fn suit_lonely_gates(&mut self) {
        self.kinds.clear();
        self.ends_in_flip = 0.5;
        self.crash_at_effect = 0.0;
        self.sync_error = 0.0;
        self.bad_release = 0.0;
    }

    /// A service is parked while its application is started again.
    fn suit_replacements_of_what_is_parked(&mut self) {
        self.kinds = vec![Kind::AppDies, Kind::ProxyReplaced];
        self.between_faults = 700_000;
        self.crash_at_effect = 0.0;
        self.sync_error = 0.0;
        self.bad_release = 0.0;
    }

    /// A successor shows what it does with a hold if the deadline passes, because the coordinator
    /// is away.
    fn suit_replacements_in_holds(&mut self) {
        self.kinds = vec![Kind::CoordinatorEnds, Kind::AgentEnds, Kind::ProxyReplaced];
        self.between_faults = 700_000;
        self.replaced_in_hold = 0.5;
        self.crash_at_effect = 0.02;
        self.sync_error = 0.0;
        self.bad_release = 0.0;
    }

    /// A coordinator that ends at one of its effects in the hold, and a vote that is on its way for
    /// longer than that.
    fn suit_late_votes(&mut self) {
        self.kinds = vec![Kind::CoordinatorEnds];
        self.between_faults = 6_000_000;
        self.crash_at_effect = 0.1;
        self.ends_in_flip = 0.0;
        self.sync_error = 0.0;
        self.stragglers = 0.6;
        self.duplicates = 0.6;
        self.bad_release = 0.0;
    }
}
