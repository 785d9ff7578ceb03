//! The demand of a call or an actor: resources, and the environment of its process. The head compares demands. A
//! process keeps the demand of its running call.

use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::resources::Resources;

static ONE_CPU: LazyLock<Resources> = LazyLock::new(Resources::one_cpu);

/// The demand of calls, or of an actor: resources, and the environment of the process. Calls of one demand share
/// workers. The usual one, one CPU in the driver's environment, costs no allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Option<Needs>", into = "Option<Needs>")]
pub(crate) struct Demand(Option<Arc<Needs>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Needs {
    resources: Resources,
    environment: Environment,
}

impl Demand {
    pub(crate) fn of(resources: Resources) -> Self {
        Self::within(Environment::default(), resources)
    }

    /// Resources, and the environment of the process.
    pub(crate) fn within(environment: Environment, resources: Resources) -> Self {
        let environment = environment.for_gpus(resources.gpu_count());
        let is_usual = environment.is_usual() && resources == *ONE_CPU;
        Self((!is_usual).then(|| Arc::new(Needs { resources, environment })))
    }

    pub(crate) fn nothing() -> Self {
        Self::of(Resources::default())
    }

    /// Whether it is one CPU, and nothing else.
    pub(crate) fn is_usual(&self) -> bool {
        self.0.is_none()
    }

    /// Whether every process of the usual environment can run it at any time.
    pub(crate) fn is_any_process(&self) -> bool {
        self.is_nothing() && self.environment().is_usual()
    }

    /// The environment of the process, with its number of GPUs.
    pub(crate) fn environment(&self) -> &Environment {
        static USUAL: Environment = Environment::USUAL;
        self.0.as_ref().map_or(&USUAL, |needs| &needs.environment)
    }
}

impl Deref for Demand {
    type Target = Resources;

    fn deref(&self) -> &Resources {
        self.0.as_ref().map_or(&ONE_CPU, |needs| &needs.resources)
    }
}

impl From<Option<Needs>> for Demand {
    fn from(needs: Option<Needs>) -> Self {
        needs.map_or_else(Self::default, |Needs { resources, environment }| {
            Self::within(environment, resources)
        })
    }
}

impl From<Demand> for Option<Needs> {
    fn from(demand: Demand) -> Self {
        demand.0.map(Arc::unwrap_or_clone)
    }
}
