//! The demands of calls, and the resources of the session.

use crate::call::options::TaskOptions;
use crate::demand::Demand;
use crate::environment::EnvironmentOptions;
use crate::error::{Error, Failure, Result};
use crate::resources::{Amounts, Resources};
use crate::runtime::{Runtime, current};
use crate::submit::Answer;
use crate::wire::ToHead;

/// The resources of the session: those that its driver set, or found, when it started the session. Costs nothing; any
/// process of the session can ask.
///
/// ```
/// #[mobula::remote]
/// fn cpus() -> mobula::Result<f64> {
///     Ok(mobula::cluster_resources()?.num_cpus())
/// }
///
/// let _mobula = mobula::Builder::new().num_cpus(2).init()?;
/// assert_eq!(mobula::cluster_resources()?.num_cpus(), 2.0);
/// assert_eq!(cpus::remote().get()?, 2.0);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// [`Error::NotInitialized`]: this process has no session.
pub fn cluster_resources() -> Result<Resources> {
    Ok(current::runtime()?.resources.clone())
}

/// The resources of the session that are free now. Costs a round trip to the head; any process of the session can ask.
///
/// ```
/// #[mobula::remote]
/// fn free() -> mobula::Result<f64> {
///     Ok(mobula::available_resources()?.num_cpus())
/// }
///
/// let _mobula = mobula::Builder::new().num_cpus(2).init()?;
/// assert_eq!(mobula::available_resources()?.num_cpus(), 2.0);
/// assert_eq!(free::remote().get()?, 1.0); // the call itself has the other
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// The resources of a call are free again about 50 milliseconds after the last call that demanded the same: the worker
/// is kept ready for this time, because often another call comes.
///
/// # Errors
/// [`Error::NotInitialized`]: this process has no session. [`Failure::SessionOver`]: it has ended meanwhile.
pub fn available_resources() -> Result<Resources> {
    match current::runtime()?.ask(|request| ToHead::AskResources { request })? {
        Answer::Resources(free) => Ok(free),
        _ => Err(Error::Failed(Failure::Other("the head answered another question".into()))),
    }
}

/// The GPUs that the running call, or the actor, may use: those that its process sees. Their number is the one that it
/// demands; if it demands a part of a GPU, there is one. The driver has none.
///
/// ```
/// #[mobula::remote(num_gpus = 1)]
/// fn train() -> mobula::Result<Vec<String>> {
///     // Libraries number the GPUs that they see from 0 on, so they need no number from here.
///     assert_eq!(std::env::var("CUDA_VISIBLE_DEVICES").expect("it is set"), mobula::gpu_ids()?.join(","));
///     mobula::gpu_ids()
/// }
///
/// # let builder = || mobula::Builder::new().num_cpus(2);
/// let _mobula = builder().num_gpus(2).init()?; // whatever the machine has
/// let gpus = mobula::get([train::remote(), train::remote()])?;
/// assert_eq!(gpus.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// Their names are those in `CUDA_VISIBLE_DEVICES`: the names of the driver's variable, if it is set, otherwise
/// numbers. Costs nothing.
///
/// # Errors
/// [`Error::NotInitialized`]: this process has no session.
pub fn gpu_ids() -> Result<Vec<String>> {
    Ok(current::runtime()?.gpus.clone())
}

/// The demand of a call of a function.
pub(super) fn demand_of_call(
    runtime: &Runtime,
    options: &TaskOptions,
    function: impl FnOnce() -> String,
) -> Result<Demand, Failure> {
    match (&options.amounts, &options.environment, &runtime.usual) {
        (None, None, Some(usual)) => Ok(usual.clone()),
        (amounts, environment, _) => {
            let none = Amounts::default();
            let amounts = amounts.as_deref().unwrap_or(&none);
            demand(runtime, amounts, environment.as_deref(), 1.0, function)
        }
    }
}

/// The demand of an actor, for life: nothing, unless the program gives one.
pub(super) fn demand_of_actor(
    runtime: &Runtime,
    amounts: &Amounts,
    environment: &EnvironmentOptions,
    constructor: impl FnOnce() -> String,
) -> Result<Demand, Failure> {
    let needs_more = amounts.resources.is_some() || amounts.num_gpus.is_some();
    let cpus_default = if needs_more { 1.0 } else { 0.0 };
    demand(runtime, amounts, Some(environment), cpus_default, constructor)
}

/// The demand of `amounts`, in the environment of a call of this process, if the session can ever meet it.
fn demand(
    runtime: &Runtime,
    amounts: &Amounts,
    environment: Option<&EnvironmentOptions>,
    cpus_default: f64,
    function: impl FnOnce() -> String,
) -> Result<Demand, Failure> {
    let demand = amounts.resolve(cpus_default).map_err(|bad| Failure::BadOption {
        option: bad.field.to_owned(),
        value: bad.value,
        expected: bad.expected,
    })?;
    let (demand, fits) = match &amounts.placement {
        None => {
            let fits = demand.is_within(&runtime.resources);
            (demand, fits)
        }
        Some(placement) => match placement.place(&demand) {
            Some(placed) => (placed, true),
            None => {
                let offer = placement.offer();
                return Err(Failure::NeverFitsBundle { function: function(), demand, offer });
            }
        },
    };
    if fits {
        let environment = match environment {
            Some(options) => runtime.environment.with(options)?,
            None => runtime.environment.clone(),
        };
        return Ok(Demand::within(environment, demand));
    }
    Err(Failure::NeverFits { function: function(), demand, offer: runtime.resources.clone() })
}
