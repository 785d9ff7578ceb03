//! A part of a client that is in use keeps the whole client.
//!
//! The owner and the peers are parts of one client. While one of them is in use, it needs the other parts: the
//! connection, the background thread, the other's memory. So each of them keeps the whole client, without knowing its
//! type.

use std::sync::{Arc, Weak};

/// Keeps a whole client. Nothing is ever called through it.
pub(crate) type KeepAlive = Arc<dyn Send + Sync>;

/// The pointer to the client that each part has from the beginning.
pub(crate) type WeakKeepAlive = Weak<dyn Send + Sync>;
