//! A reference to an object, as it stands in a value.

use std::fmt;

use mobula_client::Handle;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Error as _, Serialize, Serializer};

use super::context;
use super::stream::{self, Extension};

/// Keeps an object alive, and refers to it inside a value: by its position among the references of the payload. No
/// other format can hold it.
#[derive(Debug, Clone)]
pub(crate) struct Reference(pub(crate) Handle);

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(Extension::Reference.name(), &Content(self))
    }
}

struct Content<'a>(&'a Reference);

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let position = context::take_invitation().then(|| context::add_reference(self.0.0.clone())).flatten();
        match position {
            Some(position) => [position].serialize(serializer),
            None => Err(S::Error::custom("a reference to an object can only be sent through mobula")),
        }
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PositionVisitor)
    }
}

struct PositionVisitor;

impl<'de> Visitor<'de> for PositionVisitor {
    type Value = Reference;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reference to an object, which only mobula can read")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Reference, D::Error> {
        let [position] = stream::content(deserializer)?;
        match context::reference(position) {
            Some(Ok(handle)) => Ok(Reference(handle)),
            Some(Err(error)) => Err(context::refuse(error)),
            None => Err(serde::de::Error::custom("a reference to an object can only be read by mobula")),
        }
    }
}
