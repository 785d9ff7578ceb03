//! Actors, as their callers see them.
//!
//! All actors of Python programs are of one class for the core: the pickled class is the first argument of the
//! constructor, and a call names its method in its [`Header`](crate::call::Header).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use mobula_runtime::{ActorRef, Definition, ExportedActor, Key, Name};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::call::Function;
use crate::error::raised;
use crate::interpreter::Attribute;
use crate::options::ActorOptions;
use crate::reference::ObjectRef;
use crate::value::context::{self, Place};

/// The key of the class that all actors are of.
const CLASS: Key = Key::from_bits(0x6d6f_6275_6c61);

static RESTORED: Attribute = Attribute::new("mobula._mobula", "actor_restored");

/// An actor: what a handle holds. The actor ends with its last handle.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct Actor {
    to: ActorRef,
    class: Arc<str>,
    /// A call does not wait for earlier ones whose arguments are not there.
    is_out_of_order: bool,
}

impl Actor {
    pub(crate) fn to(&self) -> &ActorRef {
        &self.to
    }
}

fn definition(class: &Arc<str>) -> Definition {
    Definition { key: CLASS, name: Name::Shared(class.clone()) }
}

#[pymethods]
impl Actor {
    /// Starts an actor. Its class runs the constructor in a process of its own. `concurrency` says how its calls run
    /// there.
    #[new]
    fn new(
        py: Python<'_>,
        class: &Function,
        options: &ActorOptions,
        concurrency: &str,
        arguments: &Bound<'_, PyTuple>,
        names: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let (_, list) = class.arguments(py, concurrency, arguments, names)?;
        let name = class.name().clone();
        // The head says whether the name is free.
        let to = py.detach(|| ActorRef::create(definition(&name), &options.0, list));
        if let Err(error) = to.export() {
            return Err(raised(py, error));
        }
        Ok(Self { to, class: name, is_out_of_order: false })
    }

    /// A handle to the actor, whose calls do not wait for earlier ones whose arguments are not there.
    fn out_of_order(&self) -> Self {
        Self { to: self.to.clone().out_of_order(), class: self.class.clone(), is_out_of_order: true }
    }

    /// Has the actor end itself behind the calls that were made before. Returns a reference to its end.
    fn terminate(&self, py: Python<'_>) -> PyResult<ObjectRef> {
        let ended = py.detach(|| self.to.begin_to_terminate());
        Ok(ObjectRef { to: ended.map_err(|error| raised(py, error))? })
    }

    /// Ends the actor at once, or only its process if it may be restarted.
    fn kill(&self, py: Python<'_>, no_restart: bool) -> PyResult<()> {
        let kill = || if no_restart { self.to.kill() } else { self.to.kill_process() };
        py.detach(kill).map_err(|error| raised(py, error))
    }

    /// The name of its class.
    fn class_name(&self) -> String {
        self.class.to_string()
    }

    /// The number of the actor as hexadecimal digits.
    fn hex(&self) -> String {
        format!("{:?}", self.to)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().to == self.to)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.to.hash(&mut hasher);
        hasher.finish()
    }

    // A copy is the same actor.
    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }

    /// Pickles the actor within a value that mobula pickles.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Restored)> {
        let ExportedActor { actor, token, max_pending_calls, .. } =
            self.to.export().map_err(|error| raised(py, error))?;
        let place = context::add(token)?;
        let state = (place, actor, self.class.to_string(), max_pending_calls, self.is_out_of_order);
        Ok((RESTORED.get(py)?.clone(), state))
    }
}

/// The parts of a pickled actor; see [`actor_restored`].
type Restored = (Place, u64, String, u32, bool);

/// An actor that was pickled within a value.
#[pyfunction]
pub(crate) fn actor_restored(
    place: Place,
    actor: u64,
    class: &str,
    max_pending_calls: u32,
    is_out_of_order: bool,
) -> PyResult<Actor> {
    let class: Arc<str> = class.into();
    let token = context::reference(place)?;
    let exported = ExportedActor { actor, class: CLASS, token, max_pending_calls };
    let to = ActorRef::import(exported, definition(&class)).expect("the keys are the same");
    let to = if is_out_of_order { to.out_of_order() } else { to };
    Ok(Actor { to, class, is_out_of_order })
}

/// The living actor of this name, and the description that it was made with.
#[pyfunction]
#[pyo3(signature = (name, namespace = None))]
pub(crate) fn find_actor(py: Python<'_>, name: &str, namespace: Option<&str>) -> PyResult<(Actor, String)> {
    let any = "actor".into();
    let found = py.detach(|| ActorRef::described(namespace, name, definition(&any)));
    let (to, description) = found.map_err(|error| raised(py, error))?;
    let class = to.class_name().to_string().into();
    Ok((Actor { to, class, is_out_of_order: false }, description))
}

/// The names of the living actors with their namespaces.
#[pyfunction]
pub(crate) fn list_named_actors(py: Python<'_>, all_namespaces: bool) -> PyResult<Vec<(String, String)>> {
    let names = py.detach(|| mobula_runtime::list_named_actors(all_namespaces));
    let names = names.map_err(|error| raised(py, error))?;
    Ok(names.into_iter().map(|named| (named.namespace, named.name)).collect())
}

/// Ends the actor whose method calls this. The method raises then.
#[pyfunction]
pub(crate) fn exit_actor(py: Python<'_>) -> PyResult<()> {
    py.detach(mobula_runtime::exit_actor).map_err(|error| raised(py, error))
}

/// The number of the actor of this process as hexadecimal digits; `None` if this process is not an actor.
#[pyfunction]
pub(crate) fn actor_number() -> Option<String> {
    mobula_runtime::actor_number().map(|number| format!("{number:016x}"))
}

/// Whether the actor of this process was restarted.
#[pyfunction]
pub(crate) fn restarted() -> bool {
    mobula_runtime::restarted()
}
