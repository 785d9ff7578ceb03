//! The items that most programs need: `use mobula::prelude::*;`
//!
//! A name that the program defines or imports itself has priority over a name of the prelude.

#[cfg(feature = "arrow")]
pub use crate::value::Arrow;
pub use crate::value::{Bytes, BytesMut, Tensor, TensorMut};
pub use crate::{Actor, ActorHandle, ObjectRef, Result, get, get_actor, init, put, remote, wait};
