//! The extension module `mobula._mobula`: what the Python package `mobula` needs of the core.
//!
//! `value` turns Python values into payloads and back. `reference` and `actor` are the classes whose objects stand for
//! results and actors. `prepared` makes calls from the parts in `call`, and `rust` makes calls of Rust programs;
//! `stream` and `waiting` are other ways to wait. `recorded` has metrics, marks and spans. `plasma` is a client of a
//! store without a session. In a worker, which is another interpreter, `host` runs the calls. The classes and functions
//! that users see are in the Python package.
//!
//! The interpreter's lock is never held while a thread waits, and no lock of this crate is held while Python code runs.

mod actor;
mod call;
mod error;
mod host;
mod interpreter;
mod options;
mod placement;
mod plasma;
mod prepared;
mod recorded;
mod reference;
mod reply;
mod rust;
mod session;
mod state;
mod stream;
mod streaming;
mod value;
mod waiting;

use pyo3::prelude::*;

/// The functions and classes on which the package `mobula` is built.
#[pymodule]
fn _mobula(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<actor::Actor>()?;
    module.add_class::<call::Function>()?;
    module.add_class::<options::ActorOptions>()?;
    module.add_class::<options::TaskOptions>()?;
    module.add_class::<placement::PlacementGroup>()?;
    module.add_class::<plasma::PlasmaConnection>()?;
    module.add_class::<plasma::PlasmaDraft>()?;
    module.add_class::<plasma::PlasmaObject>()?;
    module.add_class::<prepared::PreparedFunction>()?;
    module.add_class::<prepared::PreparedMethod>()?;
    module.add_class::<recorded::Series>()?;
    module.add_class::<recorded::Span>()?;
    module.add_class::<reference::ObjectRef>()?;
    module.add_class::<reply::Reply>()?;
    module.add_class::<rust::RustActor>()?;
    module.add_class::<rust::RustFunction>()?;
    module.add_class::<stream::Items>()?;
    module.add_class::<streaming::OpenStream>()?;
    module.add_class::<streaming::StreamCall>()?;
    module.add_class::<value::memory::Memory>()?;
    module.add_class::<waiting::Notifier>()?;
    module.add_class::<waiting::Waiting>()?;
    module.add_function(wrap_pyfunction!(actor::actor_number, module)?)?;
    module.add_function(wrap_pyfunction!(actor::actor_restored, module)?)?;
    module.add_function(wrap_pyfunction!(actor::exit_actor, module)?)?;
    module.add_function(wrap_pyfunction!(actor::find_actor, module)?)?;
    module.add_function(wrap_pyfunction!(actor::list_named_actors, module)?)?;
    module.add_function(wrap_pyfunction!(actor::restarted, module)?)?;
    module.add_function(wrap_pyfunction!(host::run_role, module)?)?;
    module.add_function(wrap_pyfunction!(host::running_call, module)?)?;
    module.add_function(wrap_pyfunction!(session::process_id, module)?)?;
    module.add_function(wrap_pyfunction!(plasma::run_store, module)?)?;
    module.add_function(wrap_pyfunction!(recorded::mark, module)?)?;
    module.add_function(wrap_pyfunction!(reference::cancel, module)?)?;
    module.add_function(wrap_pyfunction!(reference::get, module)?)?;
    module.add_function(wrap_pyfunction!(reference::put, module)?)?;
    module.add_function(wrap_pyfunction!(reference::reference_restored, module)?)?;
    module.add_function(wrap_pyfunction!(reference::wait, module)?)?;
    module.add_function(wrap_pyfunction!(rust::put_portable, module)?)?;
    module.add_function(wrap_pyfunction!(session::available_resources, module)?)?;
    module.add_function(wrap_pyfunction!(session::cluster_resources, module)?)?;
    module.add_function(wrap_pyfunction!(session::gpu_ids, module)?)?;
    module.add_function(wrap_pyfunction!(session::is_cancelled, module)?)?;
    module.add_function(wrap_pyfunction!(session::is_initialized, module)?)?;
    module.add_function(wrap_pyfunction!(session::is_worker, module)?)?;
    module.add_function(wrap_pyfunction!(session::run_command, module)?)?;
    module.add_function(wrap_pyfunction!(session::shutdown, module)?)?;
    module.add_function(wrap_pyfunction!(session::start, module)?)?;
    module.add_function(wrap_pyfunction!(state::state, module)?)?;
    module.add_function(wrap_pyfunction!(value::memory::memory_count, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
