//! The failures that the runtime's included files have.

pub(crate) enum Failure {
    #[expect(dead_code, reason = "no model reads it")]
    ItemsLost { arrived: u64, made: Option<u64> },
}
