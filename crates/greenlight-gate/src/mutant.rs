//! What a gate must do for the protocol (`docs/design/testing.md`), each rule as a switch to break it.
//!
//! The model check and the simulation must find each of them. Without the `mutants` feature
//! [`GateMutant::None`] is the only value.

/// A deliberately broken rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GateMutant {
    /// Nothing is broken.
    #[default]
    None,
    /// The deadline of a hold opens a parked service.
    #[cfg(feature = "mutants")]
    DeadlineEndsParking,
    /// Opening some services of a hold stops the deadline of the rest.
    #[cfg(feature = "mutants")]
    OpeningStopsOtherDeadlines,
    /// A command of an older cut-over is obeyed.
    #[cfg(feature = "mutants")]
    Unfenced,
    /// A service that was never opened is held.
    #[cfg(feature = "mutants")]
    HoldsWhatWasNeverOpened,
    /// The last admission to the old color is reported as of the hold.
    #[cfg(feature = "mutants")]
    LastAdmissionAsAtTheHold,
    /// A repeated hold forgets that the deadline has ended the first one.
    #[cfg(feature = "mutants")]
    RepeatedHoldForgetsExpiry,
    /// The gate flips without having noted that it is about to.
    #[cfg(feature = "mutants")]
    FlipsUnnoted,
    /// The gate flips without its followers' having noted that it is about to.
    #[cfg(feature = "mutants")]
    NotesAlone,
    /// A process hands a hold over, whose deadline then begins anew.
    #[cfg(feature = "mutants")]
    HandsOverHeld,
    /// A successor opens what its predecessor has parked.
    #[cfg(feature = "mutants")]
    SuccessorOpensParked,
}

/// Whether `$machine` runs with the named rule broken; always false without the feature.
macro_rules! broken {
    ($machine:expr, $name:ident) => {{
        #[cfg(feature = "mutants")]
        {
            $machine.mutant == crate::mutant::GateMutant::$name
        }
        #[cfg(not(feature = "mutants"))]
        {
            let _ = &$machine.mutant;
            false
        }
    }};
}
pub(crate) use broken;
