//! `x-*` keys at the top of the file, as in Compose: the user's own, read past without a look.
//!
//! Serde can either refuse unknown keys or collect them, and collecting loses every place in the
//! file. So the keys are filtered out before the strict type sees them.

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// What a `T` is read from when its map may also have `x-*` keys.
#[derive(Debug)]
pub(in crate::config) struct WithoutExtensions<T>(pub(in crate::config) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WithoutExtensions<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopLevel<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for TopLevel<T> {
            type Value = WithoutExtensions<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of settings")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(Filter(map))).map(WithoutExtensions)
            }
        }

        deserializer.deserialize_map(TopLevel(PhantomData))
    }
}

struct Filter<A>(A);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Filter<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let mut seed = Some(seed);
        loop {
            match self.0.next_key_seed(Key(&mut seed))? {
                None => return Ok(None),
                Some(KeyOrExtension::Key(key)) => return Ok(Some(key)),
                Some(KeyOrExtension::Extension) => {
                    self.0.next_value::<IgnoredAny>()?;
                }
            }
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
}

enum KeyOrExtension<T> {
    Key(T),
    Extension,
}

/// Reads a key where the parser stands, so that a refusal is reported at the key's own place.
/// The seed is lent: it is used up by the first key that is not an extension.
struct Key<'a, S>(&'a mut Option<S>);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<'_, S> {
    type Value = KeyOrExtension<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Key<'_, S> {
    type Value = KeyOrExtension<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        if key.starts_with("x-") {
            return Ok(KeyOrExtension::Extension);
        }
        let seed = self.0.take().expect("a map asks for one key at a time");
        seed.deserialize(StrDeserializer::new(key))
            .map(KeyOrExtension::Key)
    }
}
