//! What is begun once in a cut-over, however often the coordinator asks for it.
//!
//! Nothing of it is in the journal: an agent that restarts asks its shell again. To check peers twice
//! does no harm. What makes a command run once is the shell: it knows a run by its epoch, and finds
//! one again that has outlived the agent. If the epoch is aborted, the run ends with the slots that
//! it was made for.

/// What was begun, and how it ended, if it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Attempt<T> {
    NotBegun,
    Running,
    Ended(T),
}
