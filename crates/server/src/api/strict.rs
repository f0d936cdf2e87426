//! What `serde` reads more freely than the API's description says.
//!
//! Left to itself it reads a structure from a list of its fields too, the tag of a variant from its number, and a word from an
//! object with that key. The types here are read from what the description names alone. Each derives its own reading with
//! `#[serde(remote = "Self")]`, which the macros wrap.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::{fmt, marker::PhantomData};

/// Structures are read from objects alone.
macro_rules! object {
    ($($kind:ty),+) => {$(
        impl $crate::api::strict::FromObject for $kind {
            fn from_object<'de, A: serde::de::MapAccess<'de>>(fields: A) -> Result<Self, A::Error> {
                <$kind>::deserialize(serde::de::value::MapAccessDeserializer::new(fields))
            }
        }

        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_map($crate::api::strict::Object::default())
            }
        }
    )+};
}

/// Variants are read from objects whose `type` is a text.
macro_rules! tagged {
    ($kind:ty) => {
        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let fields = $crate::api::strict::tagged_fields(deserializer)?;
                <$kind>::deserialize(fields).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Words are read from texts alone.
macro_rules! word {
    ($kind:ty) => {
        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                <$kind>::deserialize(serde::de::IntoDeserializer::<D::Error>::into_deserializer(text))
            }
        }
    };
}

pub(super) use {object, tagged, word};

/// What can be read from the fields of an object.
pub trait FromObject: Sized {
    /// Reads them.
    ///
    /// # Errors
    /// When they are not those of this type.
    fn from_object<'de, A: MapAccess<'de>>(fields: A) -> Result<Self, A::Error>;
}

/// Visits an object, and nothing else.
pub struct Object<T>(PhantomData<T>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: FromObject> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
        T::from_object(fields)
    }
}

/// An object whose `type` is a text.
///
/// # Errors
/// When it is none.
pub fn tagged_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let fields = Map::deserialize(deserializer)?;
    match fields.get("type") {
        Some(Value::String(_)) => Ok(Value::Object(fields)),
        Some(_) => Err(Error::custom("type has to be a text")),
        None => Err(Error::missing_field("type")),
    }
}
