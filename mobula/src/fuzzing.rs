//! Items for the fuzz targets alone: records of other processes, and references to objects as they stand in a value.

use mobula_client::{Handle, ObjectId};
pub use mobula_runtime::fuzzing::{read_record, records};
use serde::{Deserialize, Serialize};

use crate::value;

/// A reference to an object, as an `ObjectRef` has one that is sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reference(value::Reference);

impl Reference {
    /// Keeps the object of `handle` alive.
    pub fn new(handle: Handle) -> Self {
        Self(value::Reference(handle))
    }

    /// The object.
    pub fn id(&self) -> ObjectId {
        self.0.0.id()
    }
}
