//! Other owners, as this client sees them.
//!
//! | file | owns |
//! |---|---|
//! | [`peers`] | all of them, by client slot; attaching |
//! | [`slot`] | the references to the objects of one of them |
//! | [`peer`] | its table, the pins on it, its bell |
//! | [`segment`] | its segments that are mapped here |

pub(crate) mod peer;
pub(crate) mod peers;
pub(crate) mod segment;
pub(crate) mod slot;
