//! The calls that wait for each other in a circle.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the calls of a [`Deadlock`](crate::Failure::Deadlock): the process that runs it, and what it waits for.
///
/// ```
/// use mobula::prelude::*;
/// use mobula::Failure;
///
/// struct Selfish(Option<ActorHandle<Selfish>>);
///
/// #[remote]
/// impl Selfish {
///     fn new() -> Self {
///         Selfish(None)
///     }
///     fn keep(&mut self, own: ActorHandle<Selfish>) {
///         self.0 = Some(own);
///     }
///     fn one(&self) -> u32 {
///         1
///     }
///     fn two(&self) -> Result<u32> {
///         let own = self.0.as_ref().expect("it was given");
///         Ok(own.one().get()? + 1) // runs behind this call, which waits for it
///     }
///     fn give_up(&mut self) {
///         self.0 = None;
///     }
/// }
///
/// let _mobula = init()?;
/// let selfish = Selfish::remote();
/// selfish.keep(selfish.clone());
/// let error = match selfish.two().get() {
///     Err(mobula::Error::Task(error)) => error,
///     other => panic!("{other:?}"),
/// };
/// let Some(Failure::Deadlock { cycle }) = error.cause.as_deref() else { panic!("{error:?}") };
/// assert!(cycle[0].function.ends_with("Selfish::two") && cycle[0].waits_for.ends_with("Selfish::one"));
/// selfish.give_up().get()?;
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WaitingCall {
    /// The id of the process.
    pub pid: u32,
    /// The function or method that waits; empty if that is not known.
    pub function: String,
    /// The function or method whose result it waits for, the first of them; empty if that is not known.
    pub waits_for: String,
    /// Where it waits in the program: the file with the line and the column, if that is known.
    pub at: Option<String>,
}

impl WaitingCall {
    pub(crate) fn new(pid: u32, function: String, waits_for: String, at: Option<String>) -> Self {
        Self { pid, function, waits_for, at }
    }
}

impl fmt::Display for WaitingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |name: &str| if name.is_empty() { "a call".to_owned() } else { name.to_owned() };
        let (function, waits_for) = (name(&self.function), name(&self.waits_for));
        write!(f, "{function} (process {}) waits for {waits_for}", self.pid)?;
        match &self.at {
            Some(at) => write!(f, " at {at}"),
            None => Ok(()),
        }
    }
}

/// The circle, as an error has it.
pub(super) fn fmt_cycle(cycle: &[WaitingCall], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("a deadlock: no result will come, because calls wait for each other: ")?;
    for (position, call) in cycle.iter().enumerate() {
        let separator = if position == 0 { "" } else { "; " };
        write!(f, "{separator}{call}")?;
    }
    Ok(())
}
