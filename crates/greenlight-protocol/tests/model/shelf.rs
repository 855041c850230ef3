//! A list that only grows, and is read without a lock: every state reads it many times.

use std::sync::{Mutex, OnceLock, PoisonError};

/// Each box has room for twice as many as the one before it, so none ever moves.
const BOXES: usize = 28;
/// Room in the first box.
const FIRST: usize = 64;

/// What is put here keeps its number and its place.
pub(crate) struct Shelf<T> {
    boxes: [OnceLock<Box<[OnceLock<T>]>>; BOXES],
    count: Mutex<usize>,
}

impl<T> Shelf<T> {
    pub(crate) fn new() -> Self {
        Self {
            boxes: [const { OnceLock::new() }; BOXES],
            count: Mutex::new(0),
        }
    }

    /// Adds what is made of its number, and returns the number.
    pub(crate) fn add(&self, make: impl FnOnce(usize) -> T) -> usize {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *count;
        let (at, place) = place(number);
        let room = self.boxes[at].get_or_init(|| {
            let room = std::iter::repeat_with(OnceLock::new);
            room.take(FIRST << at).collect()
        });
        let added = room[place].set(make(number));
        assert!(added.is_ok(), "each number is given out once");
        *count += 1;
        number
    }

    pub(crate) fn get(&self, number: usize) -> &T {
        let (at, place) = place(number);
        let found = self.boxes[at].get().and_then(|room| room[place].get());
        found.expect("numbers come from here")
    }
}

/// Which box, and where in it.
fn place(number: usize) -> (usize, usize) {
    let boxes = number / FIRST + 1;
    let at = usize::try_from(boxes.ilog2()).expect("it is at most 64");
    (at, number + FIRST - (FIRST << at))
}
