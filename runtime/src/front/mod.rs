//! The functions that a front calls: arguments, calls, references and actors, without types.

pub(crate) mod actor;
pub(crate) mod actor_options;
pub(crate) mod arguments;
pub(crate) mod cancel;
pub(crate) mod context;
pub(crate) mod function;
pub(crate) mod future;
pub(crate) mod made_at;
pub(crate) mod mark;
pub(crate) mod placement;
pub(crate) mod reference;
pub(crate) mod resources;
pub(crate) mod stream;
