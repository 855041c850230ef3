//! Nodes and messages by number, and what comes of each step, worked out once.
//!
//! The real machines are pure, so a step from the same node always ends the same way. A fleet
//! has far fewer different nodes than it has states; a state is therefore a handful of numbers,
//! and the real code runs once for each node and step.

use super::message::Names;
use super::shelf::Shelf;
use super::step::{Fault, Step, Taken};
use super::world::message::Message;
use greenlight_protocol::Epoch;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Number of a node in its [`Table`].
pub(crate) type NodeId = u32;
/// Number of a message in the [`MessageTable`].
pub(crate) type MessageId = u16;

/// How many different messages there may be.
const MESSAGES: usize = 512;

/// Every way to name three instances otherwise; the first leaves them as they are.
pub(crate) const RENAMINGS: [Names; 6] = [
    [0, 1, 2],
    [1, 0, 2],
    [0, 2, 1],
    [2, 1, 0],
    [1, 2, 0],
    [2, 0, 1],
];

/// Index of a renaming in [`RENAMINGS`].
pub(crate) type Renaming = usize;

/// Stands for a message whose other name is not yet known.
const UNKNOWN: MessageId = MessageId::MAX;

/// Every message ever sent, by number.
pub(crate) struct MessageTable {
    numbers: RwLock<BTreeMap<Message, MessageId>>,
    messages: Shelf<Message>,
    renamed: Vec<[AtomicU16; RENAMINGS.len()]>,
}

impl MessageTable {
    pub(crate) fn new() -> Self {
        let renamed = || std::array::from_fn(|_| AtomicU16::new(UNKNOWN));
        Self {
            numbers: RwLock::default(),
            messages: Shelf::new(),
            renamed: std::iter::repeat_with(renamed).take(MESSAGES).collect(),
        }
    }

    /// The same message in a fleet whose instances are named otherwise.
    pub(crate) fn renamed(&self, message: MessageId, renaming: Renaming) -> MessageId {
        let known = &self.renamed[usize::from(message)][renaming];
        let found = known.load(Ordering::Relaxed);
        if found != UNKNOWN {
            return found;
        }
        let renamed = self.message(message).renamed(&RENAMINGS[renaming]);
        let number = self.number(renamed);
        known.store(number, Ordering::Relaxed);
        number
    }

    pub(crate) fn number(&self, message: Message) -> MessageId {
        if let Some(number) = read(&self.numbers).get(&message) {
            return *number;
        }
        let mut numbers = write(&self.numbers);
        *numbers.entry(message).or_insert_with_key(|message| {
            let number = self.messages.add(|_| message.clone());
            assert!(number < MESSAGES, "more than {MESSAGES} messages");
            MessageId::try_from(number).expect("there are fewer than 2^16")
        })
    }

    pub(crate) fn message(&self, number: MessageId) -> &Message {
        self.messages.get(usize::from(number))
    }
}

/// A set of messages that only grows: what was sent may arrive at any time, never, or often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Net([u64; MESSAGES / 64]);

impl Net {
    pub(crate) fn put(&mut self, message: MessageId) {
        self.0[usize::from(message / 64)] |= 1 << (message % 64);
    }

    pub(crate) fn has(&self, message: MessageId) -> bool {
        self.0[usize::from(message / 64)] & (1 << (message % 64)) != 0
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = MessageId> {
        self.0.into_iter().zip(0..).flat_map(|(mut word, index)| {
            std::iter::from_fn(move || {
                let bit = MessageId::try_from(word.trailing_zeros()).expect("it is at most 64");
                word &= word.checked_sub(1)?;
                Some(index * 64 + bit)
            })
        })
    }
}

/// What came of a step, with nodes and messages by number.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) node: NodeId,
    pub(crate) sent: Vec<MessageId>,
    pub(crate) crashes: bool,
    pub(crate) fault: Option<Fault>,
    pub(crate) opened: Option<Epoch>,
    pub(crate) breach: Option<&'static str>,
}

/// What happens at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// It reads a message.
    Reads(MessageId),
    /// It takes a step by itself.
    Own(Step),
}

impl What {
    /// What is counted of it, if anything is.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self {
            Self::Reads(_) => None,
            Self::Own(step) => step.fault(),
        }
    }
}

/// How a node first came about.
#[derive(Clone, Debug)]
struct Origin {
    parent: NodeId,
    what: What,
    outcome: usize,
}

/// One node, and what is known to come of its steps.
pub(crate) struct Entry<Node> {
    number: NodeId,
    origin: Option<Origin>,
    pub(crate) node: Node,
    pub(crate) flaw: Option<&'static str>,
    /// What it may do by itself.
    pub(crate) steps: Vec<Step>,
    own: RwLock<BTreeMap<Step, Arc<[Outcome]>>>,
    reads: RwLock<BTreeMap<MessageId, Arc<[Outcome]>>>,
}

/// What a [`Table`] needs of its nodes.
pub(crate) trait Node: Clone {
    fn key(&self) -> String;
    fn steps(&self) -> Vec<Step>;
    /// What is wrong with it, whatever the way to it.
    fn flaw(&self) -> Option<&'static str>;
    fn take(&self, step: &Step) -> Vec<Taken<Self>>;
}

/// Every different node met so far.
pub(crate) struct Table<Node> {
    numbers: RwLock<BTreeMap<String, NodeId>>,
    entries: Shelf<Entry<Node>>,
    renamed: RwLock<BTreeMap<(NodeId, Renaming), NodeId>>,
}

impl<N: Node> Table<N> {
    pub(crate) fn new() -> Self {
        Self {
            numbers: RwLock::default(),
            entries: Shelf::new(),
            renamed: RwLock::default(),
        }
    }

    /// The number of a node that nothing came before.
    pub(crate) fn root(&self, node: N) -> NodeId {
        self.number(node, None)
    }

    fn number(&self, node: N, origin: Option<Origin>) -> NodeId {
        let mut numbers = write(&self.numbers);
        *numbers.entry(node.key()).or_insert_with(|| {
            let number = self.entries.add(|number| Entry {
                number: NodeId::try_from(number).expect("there are fewer than 2^32"),
                origin,
                steps: node.steps(),
                flaw: node.flaw(),
                node,
                own: RwLock::default(),
                reads: RwLock::default(),
            });
            self.entries.get(number).number
        })
    }

    pub(crate) fn entry(&self, number: NodeId) -> &Entry<N> {
        self.entries
            .get(usize::try_from(number).expect("usize has 32 bits or more"))
    }

    /// What may come of something; the first outcome is the one without a crash.
    pub(crate) fn outcomes(
        &self,
        entry: &Entry<N>,
        what: &What,
        messages: &MessageTable,
    ) -> Arc<[Outcome]> {
        match what {
            What::Reads(message) => self.read(entry, *message, messages),
            What::Own(step) => self.take(entry, step, messages),
        }
    }

    /// What may come of a step.
    pub(crate) fn take(
        &self,
        entry: &Entry<N>,
        step: &Step,
        messages: &MessageTable,
    ) -> Arc<[Outcome]> {
        if let Some(outcomes) = read(&entry.own).get(step) {
            return outcomes.clone();
        }
        let what = What::Own(step.clone());
        let outcomes = self.work_out(entry, &what, entry.node.take(step), messages);
        let mut own = write(&entry.own);
        own.entry(step.clone()).or_insert(outcomes).clone()
    }

    /// What may come of reading a message.
    pub(crate) fn read(
        &self,
        entry: &Entry<N>,
        message: MessageId,
        messages: &MessageTable,
    ) -> Arc<[Outcome]> {
        if let Some(outcomes) = read(&entry.reads).get(&message) {
            return outcomes.clone();
        }
        let step = Step::Reads(messages.message(message).clone());
        let what = What::Reads(message);
        let outcomes = self.work_out(entry, &what, entry.node.take(&step), messages);
        let mut reads = write(&entry.reads);
        reads.entry(message).or_insert(outcomes).clone()
    }

    fn work_out(
        &self,
        entry: &Entry<N>,
        what: &What,
        taken: Vec<Taken<N>>,
        messages: &MessageTable,
    ) -> Arc<[Outcome]> {
        let outcomes = taken.into_iter().enumerate().map(|(outcome, taken)| {
            let origin = Origin {
                parent: entry.number,
                what: what.clone(),
                outcome,
            };
            self.outcome(taken, Some(origin), messages)
        });
        outcomes.collect()
    }

    fn outcome(&self, taken: Taken<N>, origin: Option<Origin>, messages: &MessageTable) -> Outcome {
        let sent = taken.sent.into_iter().filter(|message| !message.is_idle());
        let fault = origin.as_ref().and_then(|origin| origin.what.fault());
        let fault = fault.or(taken.fault);
        Outcome {
            node: self.number(taken.node, origin),
            sent: sent.map(|message| messages.number(message)).collect(),
            crashes: taken.crashes,
            fault,
            opened: taken.opened,
            breach: taken.breach,
        }
    }

    /// Outcomes of something that came before all nodes.
    pub(crate) fn roots(&self, taken: Vec<Taken<N>>, messages: &MessageTable) -> Vec<Outcome> {
        let outcomes = taken.into_iter();
        outcomes
            .map(|taken| self.outcome(taken, None, messages))
            .collect()
    }

    /// The same node in a fleet whose instances are named otherwise: the one that comes of the
    /// same history, told with the other names. Roots are the same under all names.
    pub(crate) fn renamed(
        &self,
        number: NodeId,
        renaming: Renaming,
        messages: &MessageTable,
    ) -> NodeId {
        if renaming == 0 {
            return number;
        }
        if let Some(known) = read(&self.renamed).get(&(number, renaming)) {
            return *known;
        }
        let entry = self.entry(number);
        let renamed = match &entry.origin {
            None => number,
            Some(origin) => {
                let parent = self.entry(self.renamed(origin.parent, renaming, messages));
                let what = match &origin.what {
                    What::Reads(message) => What::Reads(messages.renamed(*message, renaming)),
                    What::Own(step) => What::Own(step.renamed(&RENAMINGS[renaming])),
                };
                self.outcomes(parent, &what, messages)[origin.outcome].node
            }
        };
        write(&self.renamed).insert((number, renaming), renamed);
        renamed
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
