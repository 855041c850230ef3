//! The five rules that exhaustive search showed to be load-bearing, each as a switch to break it.
//!
//! A test removes each rule and sees the model check fail. Outside of such tests the switches do
//! not exist: without the `mutants` feature [`Mutant::None`] is the only value.

/// A deliberately broken rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// Nothing is broken.
    #[default]
    None,
    /// `Armed` is acknowledged without having been made durable.
    #[cfg(feature = "mutants")]
    ArmedVolatile,
    /// `Switch` is sent before the commit record is durable.
    #[cfg(feature = "mutants")]
    SwitchBeforeCommit,
    /// A recovering coordinator continues an undecided epoch.
    #[cfg(feature = "mutants")]
    ResumeUndecided,
    /// An agent that restarts while armed reopens to the old release.
    #[cfg(feature = "mutants")]
    ReopenAfterRestart,
    /// A peer answers "not committed" without first durably refusing the epoch.
    #[cfg(feature = "mutants")]
    RefuseWithoutPromise,
}

/// Whether `$machine` runs with the named rule broken; always false without the feature.
macro_rules! broken {
    ($machine:expr, $name:ident) => {{
        #[cfg(feature = "mutants")]
        {
            $machine.mutant == crate::mutant::Mutant::$name
        }
        #[cfg(not(feature = "mutants"))]
        {
            let _ = &$machine.mutant;
            false
        }
    }};
}
pub(crate) use broken;
