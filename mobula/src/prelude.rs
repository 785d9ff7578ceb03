//! The items that most programs need: `use mobula::prelude::*;`

pub use crate::value::{Arrow, Bytes, BytesMut, Tensor, TensorMut};
pub use crate::{Actor, ActorHandle, ObjectRef, get_actor};
