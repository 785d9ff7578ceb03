//! Placement groups: resources that are reserved together for later calls and actors.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Failure, Result};
use crate::resources::{Amounts, GroupState, Placement, Resources, Strategy};
use crate::runtime::{Runtime, current};
use crate::submit::Answer;
use crate::wire::{GroupRecord, NewGroup, ToHead};

/// The resources of one bundle of a [`PlacementGroup`].
///
/// ```
/// use mobula::Bundle;
///
/// let bundle = Bundle::new().num_cpus(1).memory(1 << 30).resources([("disk", 1)]);
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a bundle has no effect before a group is made with it"]
pub struct Bundle(Amounts);

impl Bundle {
    /// A bundle without resources. Give it some before you make a group with it.
    ///
    /// ```
    /// use mobula::Bundle;
    ///
    /// let (cpu, disk) = (Bundle::new().num_cpus(1), Bundle::new().resources([("disk", 1)]));
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// CPUs; see [`TaskOptions::num_cpus`](crate::TaskOptions::num_cpus).
    ///
    /// ```
    /// let half = mobula::Bundle::new().num_cpus(0.5);
    /// ```
    pub fn num_cpus(mut self, cpus: impl Into<f64>) -> Self {
        self.0.num_cpus = Some(cpus.into());
        self
    }

    /// Bytes of memory; see [`TaskOptions::memory`](crate::TaskOptions::memory).
    ///
    /// ```
    /// let large = mobula::Bundle::new().num_cpus(1).memory(4 << 30);
    /// ```
    pub fn memory(mut self, bytes: u64) -> Self {
        self.0.memory = Some(bytes);
        self
    }

    /// Amounts of the session's own resources, by their names.
    ///
    /// ```
    /// let licensed = mobula::Bundle::new().resources([("licence", 2), ("disk", 1)]);
    /// ```
    pub fn resources(
        mut self,
        amounts: impl IntoIterator<Item = (impl Into<String>, impl Into<f64>)>,
    ) -> Self {
        self.0.resources = Some(Amounts::named(amounts));
        self
    }

    /// The resources, for fronts.
    ///
    /// # Errors
    /// [`Failure::BadOption`]: an amount is invalid, or the bundle has no resources.
    #[doc(hidden)]
    pub fn resolved(&self) -> Result<Resources, Failure> {
        let resources = self.0.resolve(0.0).map_err(|bad| bad_option(bad.field, bad.value, &bad.expected))?;
        if resources.is_nothing() {
            return Err(bad_option(
                "bundles",
                "a bundle without resources".into(),
                "give each bundle resources",
            ));
        }
        Ok(resources)
    }
}

/// The options of a [`PlacementGroup`].
///
/// ```
/// use mobula::{PlacementOptions, Strategy};
///
/// let options = PlacementOptions::new().name("training").strategy(Strategy::StrictPack);
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "options have no effect before a group is made with them"]
pub struct PlacementOptions {
    strategy: Strategy,
    name: String,
    namespace: Option<String>,
    is_detached: bool,
}

impl PlacementOptions {
    /// The defaults: `Strategy::Pack`, and no name.
    ///
    /// ```
    /// use mobula::{Bundle, PlacementGroup, PlacementOptions};
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
    /// let group = PlacementGroup::with(PlacementOptions::new(), [Bundle::new().num_cpus(1)])?;
    /// assert_eq!(group, mobula::placement_groups()?[0].group);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// How the bundles are spread over machines. There is one machine, so all strategies mean the same, except that
    /// [`Strategy::StrictSpread`] of several bundles is an error.
    ///
    /// ```
    /// use mobula::{Bundle, PlacementGroup, PlacementOptions, Strategy};
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(2).init()?;
    /// let options = PlacementOptions::new().strategy(Strategy::StrictSpread);
    /// // Each bundle would need a machine of its own.
    /// PlacementGroup::with(options, [Bundle::new().num_cpus(1), Bundle::new().num_cpus(1)]).unwrap_err();
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// A name by which processes of this driver find the group, by [`PlacementGroup::named`].
    ///
    /// ```
    /// use mobula::{Bundle, PlacementGroup, PlacementOptions};
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
    /// let options = PlacementOptions::new().name("training");
    /// let group = PlacementGroup::with(options, [Bundle::new().num_cpus(1)])?;
    /// assert_eq!(PlacementGroup::named(None, "training")?, group);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The namespace of the name. Default: that of the session.
    ///
    /// ```
    /// use mobula::{Bundle, PlacementGroup, PlacementOptions};
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
    /// let options = PlacementOptions::new().name("training").namespace("models");
    /// PlacementGroup::with(options, [Bundle::new().num_cpus(1)])?;
    /// assert!(PlacementGroup::named(Some("models"), "training").is_ok());
    /// assert!(PlacementGroup::named(Some("others"), "training").is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The group stays when the actor that made it ends. Only a group that an actor made needs this: all groups end
    /// when they are removed, or with their driver.
    ///
    /// ```
    /// use mobula::{Bundle, PlacementGroup, PlacementOptions};
    ///
    /// struct Planner;
    ///
    /// #[mobula::remote]
    /// impl Planner {
    ///     fn new() -> Self {
    ///         Planner
    ///     }
    ///     fn reserve(&self) -> mobula::Result<PlacementGroup> {
    ///         PlacementGroup::with(PlacementOptions::new().detached(), [Bundle::new().num_cpus(1)])
    ///     }
    /// }
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
    /// let planner = Planner::remote();
    /// let group = planner.reserve().get()?;
    /// mobula::terminate(&planner, std::time::Duration::from_secs(60))?;
    /// assert_eq!(mobula::placement_groups()?[0].group, group);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn detached(mut self) -> Self {
        self.is_detached = true;
        self
    }
}

/// Resources in bundles, which are reserved all together or not at all, and kept until the group is removed. Calls and
/// actors are placed in one bundle, or in any, and demand its resources.
///
/// ```
/// use std::time::Duration;
/// use mobula::prelude::*;
/// use mobula::{ActorOptions, Bundle, PlacementGroup, TaskOptions};
///
/// struct Server(Vec<f64>);
///
/// #[remote(num_cpus = 1)]
/// impl Server {
///     fn new() -> Self {
///         Server(vec![1.0; 4])
///     }
///     fn weights(&self) -> Vec<f64> {
///         self.0.clone()
///     }
/// }
///
/// #[remote]
/// fn train(weights: Vec<f64>) -> f64 {
///     weights.iter().sum()
/// }
///
/// let _mobula = mobula::Builder::new().num_cpus(3).init()?;
/// // A server and two trainers run together, or none of them begins.
/// let group = PlacementGroup::new([Bundle::new().num_cpus(1), Bundle::new().num_cpus(2)])?;
/// assert!(group.wait(Duration::from_secs(60))?);
/// let server = Server::options(ActorOptions::new().placement(group.bundle(0)?)).remote();
/// let trainer = || train::options(TaskOptions::new().placement(group.bundle(1).expect("it is there")));
/// let sums = mobula::get((0..2).map(|_| trainer().remote(server.weights())))?;
/// assert_eq!(sums, [4.0, 4.0]);
/// group.remove()?; // the server ends, and all CPUs are free
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// Its calls and actors wait until the group has its resources. A group that the session can never serve is an error at
/// once. A group is served in rotation with calls and actors, like an actor that demands the sum of the bundles. A call
/// that a call of the group makes is in the group only if its own options say so.
///
/// Bundles have no GPUs yet: a call or an actor demands them itself.
///
/// In a session that drivers share, a group belongs to one driver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "(u64, Vec<Resources>)", into = "(u64, Vec<Resources>)")]
#[must_use]
pub struct PlacementGroup {
    group: u64,
    bundles: Arc<[Resources]>,
}

impl PlacementGroup {
    /// Makes a group with the default options. One round trip to the head. Does not wait for the resources.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::{Bundle, PlacementGroup};
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(2).init()?;
    /// let group = PlacementGroup::new([Bundle::new().num_cpus(1), Bundle::new().num_cpus(1)])?;
    /// assert!(group.wait(Duration::from_secs(60))?);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn new(bundles: impl IntoIterator<Item = Bundle>) -> Result<Self> {
        Self::with(PlacementOptions::new(), bundles)
    }

    /// Makes a group.
    ///
    /// ```
    /// use mobula::{Bundle, Error, Failure, PlacementGroup, PlacementOptions};
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
    /// let options = PlacementOptions::new().name("too large");
    /// let error = PlacementGroup::with(options, [Bundle::new().num_cpus(64)]).unwrap_err();
    /// assert!(matches!(error, Error::Failed(Failure::NeverFits { .. })), "{error}");
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Failure::NeverFits`]: the session has less than the sum of the bundles. [`Failure::BadOption`]: there are no
    /// bundles, a bundle has no resources, or there are several bundles with [`Strategy::StrictSpread`].
    /// [`Failure::NameTaken`], [`Error::NotInitialized`].
    pub fn with(options: PlacementOptions, bundles: impl IntoIterator<Item = Bundle>) -> Result<Self> {
        let runtime = current::runtime()?;
        let bundles: Vec<Resources> =
            bundles.into_iter().map(|bundle| bundle.resolved()).collect::<Result<_, Failure>>()?;
        if bundles.is_empty() {
            return Err(bad_option("bundles", "empty".into(), "give at least one bundle").into());
        }
        if options.strategy == Strategy::StrictSpread && bundles.len() > 1 {
            let expected = "each bundle needs a machine of its own, and there is one machine: give one bundle, or \
                            another strategy";
            return Err(bad_option("strategy", "STRICT_SPREAD".into(), expected).into());
        }
        let mut sum = Resources::default();
        bundles.iter().for_each(|bundle| sum.add(bundle));
        if !sum.is_within(&runtime.resources) {
            let (function, offer) = ("a placement group".to_owned(), runtime.resources.clone());
            return Err(Failure::NeverFits { function, demand: sum, offer }.into());
        }
        let PlacementOptions { strategy, name, namespace, is_detached } = options;
        let namespace = namespace.unwrap_or_else(|| runtime.namespace.clone());
        let group = NewGroup { namespace, name, bundles: bundles.clone(), strategy, is_detached };
        match runtime.ask(|request| ToHead::MakeGroup { request, group })? {
            Answer::GroupMade(group) => Ok(Self { group: group?, bundles: bundles.into() }),
            _ => Err(another_answer().into()),
        }
    }

    /// Finds a group by its name in a namespace; `None` stands for the session's namespace. One round trip to the head.
    ///
    /// ```
    /// use mobula::{Bundle, PlacementGroup, PlacementOptions};
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
    /// let options = PlacementOptions::new().name("training");
    /// let group = PlacementGroup::with(options, [Bundle::new().num_cpus(1)])?;
    /// assert_eq!(PlacementGroup::named(None, "training")?, group);
    /// group.remove()?;
    /// assert!(PlacementGroup::named(None, "training").is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Failure::BadOption`]: no group has the name. [`Error::NotInitialized`].
    pub fn named(namespace: Option<&str>, name: &str) -> Result<Self> {
        let runtime = current::runtime()?;
        let namespace = namespace.unwrap_or(&runtime.namespace);
        let is_it = |record: &GroupRecord| {
            record.made.name == name
                && record.made.namespace == namespace
                && record.state != GroupState::Removed
        };
        let found = records(&runtime)?.into_iter().find(is_it);
        let none = || bad_option("name", format!("{name:?}"), "the name of a placement group");
        let record = found.ok_or_else(none)?;
        Ok(Self { group: record.group, bundles: record.made.bundles.into() })
    }

    /// The group with this number and these bundles, for fronts that keep groups in a form of their own.
    #[doc(hidden)]
    pub fn from_parts(group: u64, bundles: Vec<Resources>) -> Self {
        Self { group, bundles: bundles.into() }
    }

    /// Its number, which no other group of the driver has.
    ///
    /// ```
    /// use mobula::{Bundle, PlacementGroup};
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
    /// let bundle = || [Bundle::new().num_cpus(0.5)];
    /// let (one, other) = (PlacementGroup::new(bundle())?, PlacementGroup::new(bundle())?);
    /// assert_ne!(one.number(), other.number());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn number(&self) -> u64 {
        self.group
    }

    /// The resources of its bundles.
    ///
    /// ```
    /// use mobula::{Bundle, PlacementGroup};
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
    /// let group = PlacementGroup::new([Bundle::new().num_cpus(0.25), Bundle::new().num_cpus(0.75)])?;
    /// let cpus: Vec<f64> = group.bundles().iter().map(|bundle| bundle.num_cpus()).collect();
    /// assert_eq!(cpus, [0.25, 0.75]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn bundles(&self) -> &[Resources] {
        &self.bundles
    }

    /// The place in one of its bundles.
    ///
    /// ```
    /// use mobula::{Bundle, PlacementGroup, TaskOptions};
    ///
    /// #[mobula::remote]
    /// fn square(x: u64) -> u64 {
    ///     x * x
    /// }
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
    /// let group = PlacementGroup::new([Bundle::new().num_cpus(1)])?;
    /// let options = TaskOptions::new().placement(group.bundle(0)?);
    /// assert_eq!(square::options(options).remote(4).get()?, 16);
    /// assert!(group.bundle(1).is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Failure::BadOption`]: it has fewer bundles.
    pub fn bundle(&self, bundle: usize) -> Result<Placement> {
        if bundle >= self.bundles.len() {
            let expected = format!("less than {}, the number of the group's bundles", self.bundles.len());
            return Err(bad_option("bundle", bundle.to_string(), &expected).into());
        }
        Ok(Placement { group: self.group, bundle: Some(bundle), bundles: self.bundles.clone() })
    }

    /// The place in any bundle that has room.
    ///
    /// ```
    /// use mobula::{Bundle, PlacementGroup, TaskOptions};
    ///
    /// #[mobula::remote]
    /// fn square(x: u64) -> u64 {
    ///     x * x
    /// }
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(2).init()?;
    /// let group = PlacementGroup::new([Bundle::new().num_cpus(1), Bundle::new().num_cpus(1)])?;
    /// let options = || TaskOptions::new().placement(group.any());
    /// assert_eq!(mobula::get((1..4).map(|x| square::options(options()).remote(x)))?, [1, 4, 9]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn any(&self) -> Placement {
        Placement { group: self.group, bundle: None, bundles: self.bundles.clone() }
    }

    /// Waits until the group has its resources, for at most `timeout`. Returns whether it has them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::{Bundle, PlacementGroup};
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
    /// let first = PlacementGroup::new([Bundle::new().num_cpus(1)])?;
    /// assert!(first.wait(Duration::from_secs(60))?);
    /// let second = PlacementGroup::new([Bundle::new().num_cpus(1)])?;
    /// assert!(!second.wait(Duration::from_millis(1))?);
    /// first.remove()?;
    /// assert!(second.wait(Duration::from_secs(60))?);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Failure::PlacementGroupRemoved`]; [`Failure::SessionOver`]; [`Error::NotInitialized`].
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        let (runtime, group) = (current::runtime()?, self.group);
        match runtime.await_end(timeout, |request| ToHead::AwaitGroup { request, group }) {
            Ok(()) => {}
            Err(Error::Timeout { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        let record = records(&runtime)?.into_iter().find(|record| record.group == group);
        match record.map_or(GroupState::Removed, |record| record.state) {
            GroupState::Created => Ok(true),
            GroupState::Pending => Ok(false),
            GroupState::Removed => Err(Failure::PlacementGroupRemoved.into()),
        }
    }

    /// Removes the group and releases its resources. Kills the processes that run its calls and actors. Does nothing
    /// the second time. One round trip to the head.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::{Bundle, GroupState, PlacementGroup};
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
    /// let group = PlacementGroup::new([Bundle::new().num_cpus(1)])?;
    /// group.remove()?;
    /// assert_eq!(mobula::placement_groups()?[0].state, GroupState::Removed);
    /// assert!(group.wait(Duration::from_secs(60)).is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Failure::SessionOver`]; [`Error::NotInitialized`].
    pub fn remove(&self) -> Result<()> {
        let group = self.group;
        current::runtime()?.await_end(Duration::MAX, |request| ToHead::RemoveGroup { request, group })
    }
}

impl From<(u64, Vec<Resources>)> for PlacementGroup {
    fn from((group, bundles): (u64, Vec<Resources>)) -> Self {
        Self::from_parts(group, bundles)
    }
}

impl From<PlacementGroup> for (u64, Vec<Resources>) {
    fn from(group: PlacementGroup) -> Self {
        (group.group, group.bundles.to_vec())
    }
}

/// A placement group with its state.
///
/// ```
/// use mobula::{Bundle, PlacementGroup, PlacementOptions, Strategy};
///
/// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
/// PlacementGroup::with(PlacementOptions::new().name("training"), [Bundle::new().num_cpus(1)])?;
/// let info = &mobula::placement_groups()?[0];
/// assert_eq!((info.name.as_str(), info.strategy), ("training", Strategy::Pack));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupInfo {
    /// The group.
    pub group: PlacementGroup,
    /// Its name; empty if it has none.
    pub name: String,
    /// The namespace of its name.
    pub namespace: String,
    /// How its bundles are spread.
    pub strategy: Strategy,
    /// Whether it has its resources.
    pub state: GroupState,
}

/// The placement groups of this driver, also those that were removed lately. One round trip to the head.
///
/// ```
/// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
/// assert!(mobula::placement_groups()?.is_empty());
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// [`Error::NotInitialized`]; [`Failure::SessionOver`].
pub fn placement_groups() -> Result<Vec<GroupInfo>> {
    let info = |GroupRecord { group, made, state }| {
        let NewGroup { namespace, name, bundles, strategy, .. } = made;
        GroupInfo { group: PlacementGroup::from_parts(group, bundles), name, namespace, strategy, state }
    };
    let runtime = current::runtime()?;
    Ok(records(&runtime)?.into_iter().map(info).collect())
}

fn records(runtime: &Runtime) -> Result<Vec<GroupRecord>, Failure> {
    match runtime.ask(|request| ToHead::ListGroups { request })? {
        Answer::Groups(groups) => groups,
        _ => Err(another_answer()),
    }
}

fn bad_option(option: &str, value: String, expected: &str) -> Failure {
    Failure::BadOption { option: option.to_owned(), value, expected: expected.to_owned() }
}

fn another_answer() -> Failure {
    Failure::Other("the head's answer belongs to another question".into())
}
