//! Placement groups: the class behind the package's `PlacementGroup`.

use std::collections::HashMap;
use std::time::Duration;

use mobula_runtime::{Bundle, GroupState, Placement, PlacementOptions, Strategy};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::raised;
use crate::session::amounts;

/// A placement group of the core.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct PlacementGroup(mobula_runtime::PlacementGroup);

/// A group with its name, its namespace, its strategy and its state.
type Known = (PlacementGroup, String, String, &'static str, &'static str);

#[pymethods]
impl PlacementGroup {
    #[new]
    #[pyo3(signature = (bundles, strategy, name, is_detached))]
    fn new(
        py: Python<'_>,
        bundles: Vec<HashMap<String, f64>>,
        strategy: &str,
        name: String,
        is_detached: bool,
    ) -> PyResult<Self> {
        let mut options = PlacementOptions::new().strategy(strategy_of(strategy)?).name(name);
        if is_detached {
            options = options.detached();
        }
        let bundles: Vec<Bundle> = bundles.into_iter().map(bundle).collect();
        let made = py.detach(|| mobula_runtime::PlacementGroup::with(options, bundles));
        Ok(Self(made.map_err(|error| raised(py, error))?))
    }

    /// The group of this name.
    #[staticmethod]
    fn named(py: Python<'_>, name: &str) -> PyResult<Self> {
        let found = py.detach(|| mobula_runtime::PlacementGroup::named(None, name));
        Ok(Self(found.map_err(|error| raised(py, error))?))
    }

    /// All groups.
    #[staticmethod]
    fn all(py: Python<'_>) -> PyResult<Vec<Known>> {
        let all = py.detach(mobula_runtime::placement_groups).map_err(|error| raised(py, error))?;
        Ok(all
            .into_iter()
            .map(|info| {
                let state = match info.state {
                    GroupState::Pending => "PENDING",
                    GroupState::Created => "CREATED",
                    _ => "REMOVED",
                };
                (Self(info.group), info.name, info.namespace, strategy_name(info.strategy), state)
            })
            .collect())
    }

    #[getter]
    fn number(&self) -> u64 {
        self.0.number()
    }

    #[getter]
    fn bundles(&self) -> Vec<HashMap<String, f64>> {
        self.0.bundles().iter().map(amounts).collect()
    }

    /// Waits until the group has its resources, for at most `timeout` seconds.
    fn wait(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let timeout = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        py.detach(|| self.0.wait(timeout)).map_err(|error| raised(py, error))
    }

    fn remove(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.remove()).map_err(|error| raised(py, error))
    }
}

/// The place in the options: a group, its bundles, and the number of a bundle; -1 for any.
pub(crate) type Place = (u64, Vec<HashMap<String, f64>>, i64);

pub(crate) fn placement(py: Python<'_>, (group, bundles, index): Place) -> PyResult<Placement> {
    let resolved: Result<Vec<_>, _> = bundles.into_iter().map(|amounts| bundle(amounts).resolved()).collect();
    let bundles = resolved.map_err(|error| raised(py, error))?;
    let group = mobula_runtime::PlacementGroup::from_parts(group, bundles);
    match usize::try_from(index) {
        Ok(index) => group.bundle(index).map_err(|error| raised(py, error)),
        Err(_) => Ok(group.any()),
    }
}

fn bundle(amounts: HashMap<String, f64>) -> Bundle {
    let mut bundle = Bundle::new();
    let mut named = Vec::new();
    for (name, amount) in amounts {
        match name.as_str() {
            "CPU" => bundle = bundle.num_cpus(amount),
            "memory" => bundle = bundle.memory(amount as u64),
            _ => named.push((name, amount)),
        }
    }
    if named.is_empty() { bundle } else { bundle.resources(named) }
}

fn strategy_of(name: &str) -> PyResult<Strategy> {
    match name {
        "PACK" => Ok(Strategy::Pack),
        "SPREAD" => Ok(Strategy::Spread),
        "STRICT_PACK" => Ok(Strategy::StrictPack),
        "STRICT_SPREAD" => Ok(Strategy::StrictSpread),
        _ => Err(PyValueError::new_err(format!("there is no strategy {name:?}"))),
    }
}

fn strategy_name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Pack => "PACK",
        Strategy::Spread => "SPREAD",
        Strategy::StrictPack => "STRICT_PACK",
        Strategy::StrictSpread => "STRICT_SPREAD",
        _ => "UNKNOWN",
    }
}
