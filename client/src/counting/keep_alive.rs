//! A part of a client keeps the whole client.
//!
//! The owner and the peers are parts of one client, and each needs the others while anything of it is in use: the
//! connection, the background thread, the other's memory. So each of them keeps all of it, and knows nothing of it.

use std::sync::{Arc, Weak};

/// Keeps a whole client. Nothing is ever called through it.
pub(crate) type KeepAlive = Arc<dyn Send + Sync>;

/// The same, as each part has it from the beginning.
pub(crate) type WeakKeepAlive = Weak<dyn Send + Sync>;
