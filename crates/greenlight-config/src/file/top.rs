//! The top of the file, where keys of the fleet, keys of the only service, and the user's own `x-*`
//! keys stand side by side.
//!
//! Serde's `flatten` would take such a map apart, but it buffers what it reads, and that loses
//! every place in the file. So the file is read twice: once for the keys of the fleet, once for
//! those of the service. Each reading passes over the keys of the other and over `x-*`, before its
//! strict type sees them.

use serde::de::value::{self, MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use std::fmt;
use std::marker::PhantomData;

/// A `T` that is read from a map that also has the keys of an `Other`.
#[derive(Debug)]
pub(crate) struct Beside<Other, T> {
    /// The value that was read.
    pub(crate) value: T,
    other: PhantomData<Other>,
}

impl<'de, Other: Deserialize<'de>, T: Deserialize<'de>> Deserialize<'de> for Beside<Other, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopLevel<T> {
            skipped: &'static [&'static str],
            value: PhantomData<T>,
        }

        impl<'de, T: Deserialize<'de>> Visitor<'de> for TopLevel<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of settings")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                let skipped = self.skipped;
                T::deserialize(MapAccessDeserializer::new(Filter { map, skipped }))
            }
        }

        let top = TopLevel {
            skipped: keys_of::<Other>(),
            value: PhantomData,
        };
        Ok(Self {
            value: deserializer.deserialize_map(top)?,
            other: PhantomData,
        })
    }
}

/// The keys of a section, as its derived parser names them.
pub(crate) fn keys_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Probe<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Error::custom("only the keys are wanted"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            keys: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = keys;
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    let mut keys: &'static [&'static str] = &[];
    // There is nothing to read, so nothing is read.
    drop(T::deserialize(Probe(&mut keys)));
    keys
}

struct Filter<A> {
    map: A,
    skipped: &'static [&'static str],
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Filter<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let mut seed = Some(seed);
        loop {
            match self.map.next_key_seed(Key {
                seed: &mut seed,
                skipped: self.skipped,
            })? {
                None => return Ok(None),
                Some(Read::Key(key)) => return Ok(Some(key)),
                Some(Read::Skipped) => {
                    self.map.next_value::<IgnoredAny>()?;
                }
            }
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

enum Read<T> {
    Key(T),
    Skipped,
}

/// Reads a key at the parser's position, so that a refusal is reported at the key.
/// The seed is borrowed: the first key that is not skipped consumes it.
struct Key<'a, S> {
    seed: &'a mut Option<S>,
    skipped: &'static [&'static str],
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<'_, S> {
    type Value = Read<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Key<'_, S> {
    type Value = Read<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        if key.starts_with("x-") || self.skipped.contains(&key) {
            return Ok(Read::Skipped);
        }
        let seed = self.seed.take().expect("a map asks for one key at a time");
        seed.deserialize(StrDeserializer::new(key)).map(Read::Key)
    }
}
