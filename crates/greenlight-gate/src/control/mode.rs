//! What a service's gate does, and what each command makes of it.
//!
//! ```text
//!            │ hold                 open     park            shed           deadline passes
//!  ──────────┼────────────────────────────────────────────────────────────────────────────
//!  Closed    │ Closed               Open     Parked          Shed           -
//!  Open      │ Held                 Open     Parked          Shed           -
//!  Held      │ Held                 Open     Parked          Shed           Expired
//!  Closing   │ Held                 Open     Parked          Shed           -
//!  Opening   │ Opening              Open     Parked          Shed (parked)  Shed (parked)
//!  Parked    │ Parked               Open     Parked          Shed (parked)  Parked
//!  Shed      │ Held, or as it was   Open     Parked          Shed           Shed
//!  Expired   │ Held                 Open     Parked          Shed           -
//! ```
//!
//! `open` to nowhere makes each of them `Closed`. What is shed and was parked before is held as
//! parked; what is shed and never served anything is not held at all.

use crate::color::{Color, Route};
use crate::wire::OnUncertain;
use serde::{Deserialize, Serialize};

/// The deadline of a hold, which the gate keeps, and not the caller that requested the hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Deadline {
    /// In milliseconds from the moment that it is armed.
    pub max_hold_ms: u64,
    /// What happens then.
    pub on_uncertain: OnUncertain,
}

/// What a service's gate does, and why.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case", tag = "mode")]
pub enum Mode {
    /// The service was never opened, or was removed: its requests are refused.
    #[default]
    Closed,
    /// Requests are admitted.
    Open { color: Color },
    /// A hold keeps requests waiting, until it is opened or the deadline passes.
    Held {
        /// The color that was served until now.
        served: Color,
        /// When the hold ends without a decision.
        deadline: Deadline,
    },
    /// A command to open that no hold came before keeps requests waiting until no process of this
    /// machine admits any more.
    Closing {
        /// The color that was served until now.
        served: Color,
    },
    /// The gate is about to flip, and has noted that it is. A process that finds this note after
    /// a restart cannot know whether the new color was served already: it serves neither.
    Opening {
        /// The color that was served until now.
        served: Color,
        /// What is left of the hold; it can only end in shedding.
        deadline: Option<Deadline>,
    },
    /// Requests wait until the gate is opened.
    Parked {
        /// The color that was served until now.
        served: Option<Color>,
        /// A hold that is on as well.
        hold: Option<Deadline>,
    },
    /// Requests are refused until the service is opened or held.
    Shed {
        /// The color that was served until now.
        served: Option<Color>,
        /// Whether it was parked, and is again once it is held.
        parked: bool,
        /// A hold that is on as well.
        hold: Option<Deadline>,
    },
    /// The deadline of a hold has passed without a decision.
    Expired {
        /// The color that was served before the hold.
        served: Color,
        /// Whether it is served again, or requests are refused.
        then: OnUncertain,
    },
}

impl Mode {
    /// What the gate does with a request.
    pub fn route(self) -> Route {
        match self {
            Self::Closed => Route::Closed,
            Self::Open { color } => Route::Open(color),
            Self::Held { served, .. } | Self::Closing { served } | Self::Opening { served, .. } => {
                Route::Held(Some(served))
            }
            Self::Parked { served, .. } => Route::Held(served),
            Self::Shed { served, .. } => Route::Shed(served),
            Self::Expired { served, then } => match then {
                OnUncertain::ServeOld => Route::Open(served),
                OnUncertain::Shed => Route::Shed(Some(served)),
            },
        }
    }

    /// The color that is served, or was until now.
    pub fn served(self) -> Option<Color> {
        self.route().served()
    }

    /// The deadline of the hold that is on.
    pub fn deadline(self) -> Option<Deadline> {
        match self {
            Self::Held { deadline, .. } => Some(deadline),
            Self::Opening { deadline, .. } => deadline,
            Self::Parked { hold, .. } | Self::Shed { hold, .. } => hold,
            Self::Closed | Self::Open { .. } | Self::Closing { .. } | Self::Expired { .. } => None,
        }
    }

    /// Whether requests wait until the gate is opened, without a deadline.
    pub fn is_parked(self) -> bool {
        match self {
            Self::Parked { .. } => true,
            Self::Shed { parked, .. } => parked,
            Self::Closed
            | Self::Open { .. }
            | Self::Held { .. }
            | Self::Closing { .. }
            | Self::Opening { .. }
            | Self::Expired { .. } => false,
        }
    }

    /// A hold begins. What was never opened is not held: its requests are refused as before.
    pub(super) fn held(self, deadline: Deadline) -> Self {
        let hold = Some(deadline);
        match (self, self.served()) {
            (
                Self::Parked { served, .. }
                | Self::Shed {
                    served,
                    parked: true,
                    ..
                },
                _,
            ) => Self::Parked { served, hold },
            (Self::Opening { served, .. }, _) => Self::Opening {
                served,
                deadline: hold,
            },
            (_, Some(served)) => Self::Held { served, deadline },
            (_, None) => self,
        }
    }

    /// A command to open.
    pub(super) fn opened(color: Option<Color>) -> Self {
        color.map_or(Self::Closed, |color| Self::Open { color })
    }

    /// Whether a restart could serve what was served before, although this gate has been opened:
    /// then the opening is noted before it happens. A gate that closed for its followers may have
    /// expired before. Without a hold or followers a note would promise nothing, because no one
    /// else waits.
    pub(super) fn needs_note(self, to: Option<Color>) -> bool {
        let may_serve_old = match self {
            Self::Held { .. } | Self::Closing { .. } => true,
            Self::Expired { then, .. } => then == OnUncertain::ServeOld,
            Self::Closed
            | Self::Open { .. }
            | Self::Opening { .. }
            | Self::Parked { .. }
            | Self::Shed { .. } => false,
        };
        may_serve_old && to.is_some() && to != self.served()
    }

    /// The gate is about to flip.
    pub(super) fn noted(self) -> Self {
        match (self, self.served()) {
            (_, Some(served)) => Self::Opening {
                served,
                deadline: self.deadline(),
            },
            (_, None) => self,
        }
    }

    pub(super) fn parked(self) -> Self {
        Self::Parked {
            served: self.served(),
            hold: self.deadline(),
        }
    }

    pub(super) fn shed(self) -> Self {
        Self::Shed {
            served: self.served(),
            // Of a noted opening, a later hold must not let the old color be served either.
            parked: self.is_parked() || matches!(self, Self::Opening { .. }),
            hold: self.deadline(),
        }
    }

    /// The deadline passes.
    pub(super) fn expired(self) -> Self {
        match self {
            Self::Held { served, deadline } => Self::Expired {
                served,
                then: deadline.on_uncertain,
            },
            Self::Opening {
                served,
                deadline: Some(_),
            } => Self::Shed {
                served: Some(served),
                // A later hold must not let the old color be served either.
                parked: true,
                hold: None,
            },
            Self::Closed
            | Self::Open { .. }
            | Self::Closing { .. }
            | Self::Opening { deadline: None, .. }
            | Self::Parked { .. }
            | Self::Shed { .. }
            | Self::Expired { .. } => self.without_hold(),
        }
    }

    /// The hold is given up: what was served is served again.
    pub(super) fn given_up(self) -> Self {
        match self {
            Self::Held { served, .. } | Self::Closing { served } => Self::Open { color: served },
            Self::Opening { served, .. } => Self::Opening {
                served,
                deadline: None,
            },
            Self::Closed
            | Self::Open { .. }
            | Self::Parked { .. }
            | Self::Shed { .. }
            | Self::Expired { .. } => self.without_hold(),
        }
    }

    /// The same, with more time until the deadline.
    pub(super) fn with_later_deadline(self, by_ms: u64) -> Self {
        let later = |deadline: Deadline| Deadline {
            max_hold_ms: deadline.max_hold_ms.saturating_add(by_ms),
            ..deadline
        };
        match self {
            Self::Held { served, deadline } => Self::Held {
                served,
                deadline: later(deadline),
            },
            Self::Opening { served, deadline } => Self::Opening {
                served,
                deadline: deadline.map(later),
            },
            Self::Parked { served, hold } => Self::Parked {
                served,
                hold: hold.map(later),
            },
            Self::Shed {
                served,
                parked,
                hold,
            } => Self::Shed {
                served,
                parked,
                hold: hold.map(later),
            },
            Self::Closed | Self::Open { .. } | Self::Closing { .. } | Self::Expired { .. } => self,
        }
    }

    /// The same without a deadline that does nothing.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn normal_form(self) -> Self {
        self.without_hold()
    }

    fn without_hold(self) -> Self {
        match self {
            Self::Parked { served, .. } => Self::Parked { served, hold: None },
            Self::Shed { served, parked, .. } => Self::Shed {
                served,
                parked,
                hold: None,
            },
            other @ (Self::Closed
            | Self::Open { .. }
            | Self::Held { .. }
            | Self::Closing { .. }
            | Self::Opening { .. }
            | Self::Expired { .. }) => other,
        }
    }
}
