//! The items that most programs need: `use mobula::prelude::*;`
//!
//! ```
//! use mobula::prelude::*;
//!
//! #[remote]
//! fn mean(samples: Tensor<f32>) -> f32 {
//!     samples.as_slice().iter().sum::<f32>() / samples.as_slice().len() as f32
//! }
//!
//! let _mobula = init()?;
//! let samples = put(&Tensor::from(vec![1.0_f32, 2.0, 6.0]))?;
//! assert_eq!(mean::remote(samples).get()?, 3.0);
//! # Ok::<(), mobula::Error>(())
//! ```
//!
//! A name that the program defines or imports itself has priority over a name of the prelude.

#[cfg(feature = "arrow")]
pub use crate::value::Arrow;
pub use crate::value::{Bytes, BytesMut, Tensor, TensorMut};
pub use crate::{Actor, ActorHandle, ObjectRef, Result, get, get_actor, init, put, remote, wait};
