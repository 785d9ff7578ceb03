//! Other owners, as this client sees them: their tables, our pins on their objects, and their segments.

pub(crate) mod peer;
