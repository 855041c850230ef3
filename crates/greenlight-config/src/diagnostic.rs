//! What can be wrong with `greenlight.yml`: each diagnostic with its place, and what to do about
//! it.

use greenlight_release::duration::DurationError;
use miette::SourceSpan;
use thiserror::Error;

/// One thing that is wrong in the file.
#[derive(Clone, Debug, PartialEq, Eq, Error, miette::Diagnostic)]
pub enum Diagnostic {
    #[error("unknown key `{key}`")]
    UnknownKey {
        /// The key as written.
        key: String,
        #[label("not a key of this map")]
        at: SourceSpan,
        /// The key that was meant, or all there are.
        #[help]
        help: String,
    },
    /// A key that occurs twice in one map.
    #[error("`{key}` is set twice")]
    #[diagnostic(help("remove one of them"))]
    DuplicateKey {
        key: String,
        /// The second occurrence.
        #[label("again here")]
        at: SourceSpan,
    },
    /// A key that must be there.
    #[error("`{key}` is missing")]
    MissingKey {
        key: String,
        /// What lacks it.
        #[label("missing here")]
        at: SourceSpan,
        /// What to write.
        #[help]
        help: String,
    },
    /// A word that is not one of the allowed words.
    #[error("`{found}` is not known here")]
    UnknownWord {
        /// The word as written.
        found: String,
        #[label("unknown word")]
        at: SourceSpan,
        /// The allowed words.
        #[help]
        help: String,
    },
    /// A value of the wrong shape.
    #[error("{expected} was expected here")]
    WrongType {
        expected: String,
        #[label("not {expected}")]
        at: SourceSpan,
        /// What to write instead, if there is more to say.
        #[help]
        help: Option<String>,
    },
    /// The file is not YAML.
    #[error("this is not valid YAML: {message}")]
    Syntax {
        /// What the parser says.
        message: String,
        /// Where it gave up.
        #[label("here")]
        at: SourceSpan,
        /// A guess at the cause.
        #[help]
        help: Option<String>,
    },
    /// A variable of the environment that is not set.
    #[error("the environment variable `{name}` is not set")]
    Unset {
        name: String,
        /// Where it is used.
        #[label("used here")]
        at: SourceSpan,
        /// The reason that the file gives, or how to give a default.
        #[help]
        help: String,
    },
    /// `${…}` in a place where it is not replaced.
    #[error("`{text}` would not be replaced here")]
    NotReplaced {
        /// The reference.
        text: String,
        /// The value that has it.
        #[label("would stay as it is")]
        at: SourceSpan,
        /// What to write instead.
        #[help]
        help: String,
    },
    /// A text that is no time.
    #[error("`{text}` is not a time: {error}")]
    #[diagnostic(help(
        "write a number and a unit: `250ms`, `5s`, `15m`, `1h`; a number alone is seconds"
    ))]
    NotATime {
        text: String,
        error: DurationError,
        #[label("not a time")]
        at: SourceSpan,
    },
    /// A value that its key does not take.
    #[error("`{key}` cannot be `{value}`")]
    BadValue {
        key: String,
        /// The value as written.
        value: String,
        #[label("{reason}")]
        at: SourceSpan,
        reason: String,
        /// What to write instead.
        #[help]
        help: String,
    },
    /// Two keys of which only one may be there.
    #[error("`{key}` and `{other}` cannot both be set")]
    Conflict {
        /// The first key.
        key: String,
        /// Where it is set.
        #[label("`{key}` is set here")]
        at: SourceSpan,
        /// The second key.
        other: String,
        /// Where that is set.
        #[label("`{other}` is set here")]
        other_at: SourceSpan,
        /// Which to keep.
        #[help]
        help: String,
    },
    /// A key of one place that was written in another.
    #[error("`{key}` does not belong here")]
    Misplaced {
        key: String,
        /// Its position.
        #[label("out of place")]
        at: SourceSpan,
        /// Where it belongs.
        #[help]
        help: String,
    },
    /// Something that the file may say, but that this version cannot do.
    #[error("{feature} is not in this version")]
    NotInThisVersion {
        feature: String,
        /// Where it is asked for.
        #[label("not available yet")]
        at: SourceSpan,
        /// What to do instead.
        #[help]
        help: String,
    },
    /// The budget for a hold must be shorter than the deadline in the gate.
    #[error("`hold_budget` ({budget}) must be shorter than `max_hold` ({deadline})")]
    #[diagnostic(help(
        "a gate that reaches `max_hold` no longer waits for the others; leave room between the \
         two, as with `hold_budget: 250ms` and `max_hold: 2s`"
    ))]
    BudgetBeyondDeadline {
        budget: String,
        /// Where it is set, if it is.
        #[label("the coordinator gives up after this")]
        budget_at: Option<SourceSpan>,
        deadline: String,
        /// Where it is set, if it is.
        #[label("a gate stops waiting after this")]
        deadline_at: Option<SourceSpan>,
    },
    /// The same instance twice.
    #[error("{what} is listed twice")]
    #[diagnostic(help(
        "remove one; to run two instances on one machine, give each its own `name`, `port` and \
         `ports`"
    ))]
    DuplicateServer {
        /// Its address, or its name.
        what: String,
        #[label("first here")]
        first: SourceSpan,
        #[label("again here")]
        at: SourceSpan,
    },
    /// One port for two purposes on one machine.
    #[error("port {port} is used twice on {machine}")]
    #[diagnostic(help(
        "each public port, each blue and green port, and each `verify_port` must be another one; \
         set `ports: {{ blue: ..., green: ... }}` in the service's `proxy`, `verify_port` in \
         `proxy.nginx`, or `port` and `ports` of a server"
    ))]
    PortTwice {
        port: u16,
        machine: String,
        /// What uses it.
        first: String,
        /// Where that comes from.
        #[label("{first}")]
        first_at: SourceSpan,
        /// What else uses it.
        second: String,
        /// Where that comes from.
        #[label("{second}")]
        at: SourceSpan,
    },
    /// Two services that want the same requests.
    #[error("services `{first}` and `{second}` would get the same requests")]
    #[diagnostic(help("give one of them another `host`, or another `path_prefix`"))]
    SameRoute {
        /// One service.
        first: String,
        /// The other.
        second: String,
        /// The first service.
        #[label("`{first}`")]
        first_at: SourceSpan,
        #[label("`{second}`")]
        at: SourceSpan,
    },
}
