//! Resources: those that a session has, those that a call or an actor demands, and those that are free.
//!
//! They are logical. The head counts them, so that the calls that run at the same time never demand more than there is.
//! Nothing prevents a call from using more than it demands.
//!
//! An amount is a whole number of [units](UNITS), so sums are exact: three thirds are never more than one. Amounts that
//! users give as floating-point numbers are turned into units once, when the call is made.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The units of an amount of 1. Memory is counted in the same units, so that all amounts have one unit.
const UNITS: u64 = 10_000;
/// A resource that every session has. A call demands 1 of it by default.
const CPU: &str = "CPU";
const GPU: &str = "GPU";
const MEMORY: &str = "memory";
/// The beginning of the names of single GPUs, which the head counts in addition to their sum.
const EACH_GPU: &str = "GPU:";
/// The first part of the name of a placement group's resource. The head counts these resources in addition to those of
/// the session. The group's number follows, then the number of the bundle, or `*` for the sum of all bundles, then the
/// resource.
const GROUP: &str = "group:";
/// The most calls and actors in a placement group at a time: each takes one unit of the group itself.
const GROUP_UNITS: u64 = u64::MAX / 4;

/// Amounts of resources: those of a session, or those of it that are free. Returned by
/// [`cluster_resources`](crate::cluster_resources) and [`available_resources`](crate::available_resources).
///
/// ```
/// let _mobula = mobula::Builder::new().num_cpus(2).resources([("disk", 1.5)]).init()?;
/// let resources = mobula::cluster_resources()?;
/// assert_eq!(resources.num_cpus(), 2.0);
/// assert_eq!(resources.get("disk"), 1.5);
/// assert_eq!(resources.get("tape"), 0.0);
/// assert!(resources.to_string().contains("1.5 disk"));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// Units by name; none is 0.
    units: BTreeMap<Box<str>, u64>,
}

impl Resources {
    /// The number of CPUs.
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().num_cpus(2.5).init()?;
    /// assert_eq!(mobula::cluster_resources()?.num_cpus(), 2.5);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn num_cpus(&self) -> f64 {
        self.get(CPU)
    }

    /// The number of GPUs.
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().num_gpus(2).init()?; // whatever the machine has
    /// assert_eq!(mobula::cluster_resources()?.num_gpus(), 2.0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn num_gpus(&self) -> f64 {
        self.get(GPU)
    }

    /// Bytes of memory.
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().memory(1 << 30).init()?;
    /// assert_eq!(mobula::available_resources()?.memory(), 1 << 30);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.units_of(MEMORY) / UNITS
    }

    /// The amount of a resource, by the name that the session gave it; 0 if there is none.
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().resources([("licence", 2)]).init()?;
    /// let resources = mobula::cluster_resources()?;
    /// assert_eq!((resources.get("licence"), resources.get("disk")), (2.0, 0.0));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn get(&self, name: &str) -> f64 {
        self.units_of(name) as f64 / UNITS as f64
    }

    /// The names and amounts of all resources of which there is more than 0. The CPUs are `CPU`, the GPUs are `GPU`,
    /// and the memory is `memory`, in bytes.
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().num_cpus(2).memory(1 << 30).resources([("disk", 1)]).init()?;
    /// let resources = mobula::cluster_resources()?;
    /// let all: Vec<_> = resources.iter().collect();
    /// assert_eq!(all, [("CPU", 2.0), ("disk", 1.0), ("memory", f64::from(1 << 30))]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.units.iter().map(|(name, units)| (&**name, *units as f64 / UNITS as f64))
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (name, amount) in self.iter() {
            let (of, name) = match name.strip_prefix(GROUP).map(|name| name.split_once(":*:")) {
                None => (None, name),
                Some(Some((group, name))) => (Some(group), name),
                // Hides the unit of the group itself and the amounts of single bundles: the sums of all bundles contain
                // them.
                Some(None) => continue,
            };
            match name {
                MEMORY => write!(f, "{comma}{amount} bytes of memory")?,
                _ => write!(f, "{comma}{amount} {name}")?,
            }
            if let Some(group) = of {
                write!(f, " of placement group {group}")?;
            }
            comma = ", ";
        }
        if comma.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}

impl Resources {
    /// One CPU: the demand of most calls.
    pub(crate) fn one_cpu() -> Self {
        Self { units: BTreeMap::from([(CPU.into(), UNITS)]) }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.units.is_empty()
    }

    /// The number of GPUs, each of them whole or in part.
    pub(crate) fn gpu_count(&self) -> usize {
        usize::try_from(self.units_of(GPU).div_ceil(UNITS)).unwrap_or(usize::MAX)
    }

    /// These resources, together with the parts of these GPUs. Their number must be the [number of
    /// GPUs](Self::gpu_count).
    pub(crate) fn on_gpus(&self, gpus: &[usize]) -> Cow<'_, Self> {
        let mut all = Cow::Borrowed(self);
        for gpu in gpus {
            all.to_mut().set(&gpu_name(*gpu), self.each_gpu());
        }
        all
    }

    /// These resources without single GPUs, and without the resources of placement groups.
    pub(crate) fn of_session(mut self) -> Self {
        self.units.retain(|name, _| !name.starts_with(EACH_GPU) && !name.starts_with(GROUP));
        self
    }

    /// These resources, demanded from a placement group: from this bundle, or from any.
    pub(crate) fn within_group(&self, group: u64, bundle: Option<usize>) -> Self {
        let mut within = Self::default();
        within.set(&group_name(group), 1);
        for (name, units) in &self.units {
            within.set(&format!("{}:*:{name}", group_name(group)), *units);
            if let Some(bundle) = bundle {
                within.set(&format!("{}:{bundle}:{name}", group_name(group)), *units);
            }
        }
        within
    }

    /// All resources of a placement group with these bundles.
    pub(crate) fn of_group(group: u64, bundles: &[Self]) -> Self {
        let mut all = Self::default();
        for (number, bundle) in bundles.iter().enumerate() {
            all.add(&bundle.within_group(group, Some(number)));
        }
        all.set(&group_name(group), GROUP_UNITS);
        all
    }

    /// The placement group from which this is demanded.
    pub(crate) fn group(&self) -> Option<u64> {
        let from = (Bound::Included(GROUP), Bound::Unbounded);
        let (name, _) = self.units.range::<str, _>(from).next()?;
        name.strip_prefix(GROUP)?.split(':').next()?.parse().ok()
    }

    /// The best GPUs for this: those that lack least of it, and of these, those with least left. `total` has the number
    /// of GPUs, and `free` the free part of each.
    pub(crate) fn best_gpus(&self, total: &Self, free: &Self) -> Vec<usize> {
        let each = self.each_gpu();
        let rank = |gpu: &usize| {
            let free = free.units_of(&gpu_name(*gpu));
            (each.saturating_sub(free), free.saturating_sub(each), *gpu)
        };
        let mut gpus: Vec<usize> = (0..total.gpu_count()).collect();
        gpus.sort_by_cached_key(rank);
        gpus.truncate(self.gpu_count());
        gpus.sort_unstable();
        gpus
    }

    /// The part of each of its GPUs.
    fn each_gpu(&self) -> u64 {
        self.units_of(GPU).min(UNITS)
    }

    /// These resources without CPUs: a call that waits for others gives those back.
    pub(crate) fn without_cpus(&self) -> Self {
        let mut rest = self.clone();
        rest.units.remove(CPU);
        rest.units.retain(|name, _| !(name.starts_with(GROUP) && name.ends_with(GROUP_CPU)));
        rest
    }

    /// Whether `offer` has all of this.
    pub(crate) fn is_within(&self, offer: &Self) -> bool {
        self.units.iter().all(|(name, units)| *units <= offer.units_of(name))
    }

    /// Whether `total` has all of this beside the taken resources.
    pub(crate) fn fits<const N: usize>(&self, total: &Self, taken: [&Self; N]) -> bool {
        let sum = |name, units| {
            taken.iter().fold(units, |sum: u64, taken| sum.saturating_add(taken.units_of(name)))
        };
        self.units.iter().all(|(name, units)| sum(name, *units) <= total.units_of(name))
    }

    /// CPUs, rounded up.
    pub(crate) fn cpus_ceiling(&self) -> usize {
        usize::try_from(self.units_of(CPU).div_ceil(UNITS)).unwrap_or(usize::MAX)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, units) in &other.units {
            match self.units.get_mut(&**name) {
                Some(sum) => *sum = sum.saturating_add(*units),
                None => _ = self.units.insert(name.clone(), *units),
            }
        }
    }

    /// Subtracts `other`, as far as it is there.
    pub(crate) fn subtract(&mut self, other: &Self) {
        for (name, units) in &other.units {
            if let Some(rest) = self.units.get_mut(&**name) {
                *rest = rest.saturating_sub(*units);
                if *rest == 0 {
                    self.units.remove(&**name);
                }
            }
        }
    }

    /// The rest of this without `used`.
    pub(crate) fn less(&self, used: &Self) -> Self {
        let mut rest = self.clone();
        rest.subtract(used);
        rest
    }

    /// Whether both have some of the same resource.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.units.keys().any(|name| other.units_of(name) > 0)
    }

    /// The smaller amount of both, for each resource.
    pub(crate) fn at_most(&self, other: &Self) -> Self {
        self.less(&self.less(other))
    }

    /// The part of this that is more than `offer` has.
    pub(crate) fn beyond(&self, offer: &Self) -> Self {
        self.less(offer)
    }

    fn units_of(&self, name: &str) -> u64 {
        self.units.get(name).copied().unwrap_or(0)
    }

    fn set(&mut self, name: &str, units: u64) {
        if units > 0 {
            self.units.insert(name.into(), units);
        } else {
            self.units.remove(name);
        }
    }
}

/// The end of the name of a group's CPUs.
const GROUP_CPU: &str = ":CPU";

fn group_name(group: u64) -> String {
    format!("{GROUP}{group}")
}

fn gpu_name(gpu: usize) -> String {
    format!("{EACH_GPU}{gpu}")
}

/// Amounts as a user gave them. An option that was not given is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Amounts {
    /// CPUs.
    pub num_cpus: Option<f64>,
    /// GPUs: a part of one, or a whole number.
    pub num_gpus: Option<f64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// The names of other resources, and how much of each.
    pub resources: Option<Vec<(String, f64)>>,
    /// The placement group whose resources they are.
    pub placement: Option<Placement>,
}

/// The way in which the bundles of a placement group are spread over machines. There is one machine, so three
/// strategies mean the same, and [`StrictSpread`](Self::StrictSpread) of several bundles is an error.
///
/// ```
/// use mobula::{Bundle, PlacementGroup, PlacementOptions, Strategy};
///
/// let _mobula = mobula::Builder::new().num_cpus(2).init()?;
/// let options = PlacementOptions::new().strategy(Strategy::StrictSpread);
/// let error = PlacementGroup::with(options, [Bundle::new().num_cpus(1), Bundle::new().num_cpus(1)]).unwrap_err();
/// assert!(error.to_string().contains("one machine"));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Strategy {
    /// Close together, if that is possible.
    #[default]
    Pack,
    /// Apart, if that is possible.
    Spread,
    /// On one machine.
    StrictPack,
    /// Each on another machine.
    StrictSpread,
}

/// The state of a placement group.
///
/// ```
/// use mobula::{Bundle, GroupState, PlacementGroup};
/// use std::time::Duration;
///
/// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
/// let group = PlacementGroup::new([Bundle::new().num_cpus(1)])?;
/// assert!(group.wait(Duration::from_secs(60))?);
/// assert_eq!(mobula::placement_groups()?[0].state, GroupState::Created);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GroupState {
    /// It waits for its resources.
    Pending,
    /// It has them.
    Created,
    /// It was removed.
    Removed,
}

/// The place of a call or an actor in a placement group: one of its bundles, or any of them.
/// [`PlacementGroup::bundle`](crate::PlacementGroup::bundle) and [`any`](crate::PlacementGroup::any) return it.
///
/// ```
/// use mobula::{Bundle, PlacementGroup, TaskOptions};
///
/// let _mobula = mobula::Builder::new().num_cpus(1).init()?;
/// let group = PlacementGroup::new([Bundle::new().num_cpus(1)])?;
/// let place: mobula::Placement = group.bundle(0)?;
/// let options = TaskOptions::new().placement(place);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    pub(crate) group: u64,
    pub(crate) bundle: Option<usize>,
    pub(crate) bundles: Arc<[Resources]>,
}

impl Placement {
    /// The demand in terms of the group's resources, if one of these bundles has as much.
    pub(crate) fn place(&self, demand: &Resources) -> Option<Resources> {
        let mut bundles = self.bundles.iter().enumerate();
        let fits = bundles.any(|(number, bundle)| {
            self.bundle.is_none_or(|wanted| wanted == number) && demand.is_within(bundle)
        });
        fits.then(|| demand.within_group(self.group, self.bundle))
    }

    /// The largest of these bundles, for an error.
    pub(crate) fn offer(&self) -> Resources {
        let largest = || self.bundles.iter().max_by_key(|bundle| bundle.units.values().sum::<u64>());
        self.bundle.and_then(|bundle| self.bundles.get(bundle)).or_else(largest).cloned().unwrap_or_default()
    }
}

/// An invalid amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadAmount {
    /// The option.
    pub(crate) field: &'static str,
    /// The value that was given.
    pub(crate) value: String,
    /// The values that can be given.
    pub(crate) expected: String,
}

impl Amounts {
    /// Names and amounts, in the form in which they are kept.
    pub fn named(
        amounts: impl IntoIterator<Item = (impl Into<String>, impl Into<f64>)>,
    ) -> Vec<(String, f64)> {
        amounts.into_iter().map(|(name, amount)| (name.into(), amount.into())).collect()
    }

    /// These amounts. Those that are not set are taken from `defaults`.
    pub(crate) fn or(self, defaults: Self) -> Self {
        Self {
            num_cpus: self.num_cpus.or(defaults.num_cpus),
            num_gpus: self.num_gpus.or(defaults.num_gpus),
            memory: self.memory.or(defaults.memory),
            resources: self.resources.or(defaults.resources),
            placement: self.placement.or(defaults.placement),
        }
    }

    /// The resources of these amounts, with `cpus_default` CPUs if their number was not given.
    pub(crate) fn resolve(&self, cpus_default: f64) -> Result<Resources, BadAmount> {
        let mut resources = Resources::default();
        let cpus = self.num_cpus.unwrap_or(cpus_default);
        resources.set(CPU, units("num_cpus", CPU, cpus)?);
        resources.set(GPU, gpu_units(self.num_gpus.unwrap_or(0.0))?);
        resources.set(MEMORY, self.memory.unwrap_or(0).saturating_mul(UNITS));
        for (name, amount) in self.resources.iter().flatten() {
            if name.is_empty()
                || [CPU, GPU, MEMORY].contains(&&**name)
                || name.starts_with(EACH_GPU)
                || name.starts_with(GROUP)
            {
                let expected =
                    "names of your own: for CPUs, GPUs and memory, there are the options `num_cpus`, \
                                `num_gpus` and `memory`"
                        .into();
                return Err(BadAmount { field: "resources", value: format!("{name:?}"), expected });
            }
            resources.set(name, units("resources", name, *amount)?);
        }
        Ok(resources)
    }
}

/// The amount in units, rounded down. An amount that is more than 0 must not become 0.
fn units(field: &'static str, name: &str, amount: f64) -> Result<u64, BadAmount> {
    // So that 0.3, which is a little less as a floating-point number, is 3000 units.
    let units = (amount * UNITS as f64 * (1.0 + 1e-12)).floor();
    let is_possible = amount == 0.0 || (units >= 1.0 && units < (u64::MAX / 2) as f64);
    if is_possible {
        return Ok(units as u64);
    }
    let expected = "0, or a number from 0.0001 on".to_owned();
    Err(BadAmount { field, value: format!("{amount} {name}"), expected })
}

/// The units of GPUs. Whole GPUs are given out whole, so a number above 1 must be whole.
fn gpu_units(amount: f64) -> Result<u64, BadAmount> {
    let units = units("num_gpus", GPU, amount)?;
    if units <= UNITS || units.is_multiple_of(UNITS) {
        return Ok(units);
    }
    let expected = "a part of one GPU, or a whole number of GPUs".to_owned();
    Err(BadAmount { field: "num_gpus", value: format!("{amount} {GPU}"), expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::Demand;

    fn cpus(amount: f64) -> Result<Resources, BadAmount> {
        Amounts { num_cpus: Some(amount), ..Amounts::default() }.resolve(1.0)
    }

    fn custom(amounts: &[(&str, f64)]) -> Result<Resources, BadAmount> {
        let resources = amounts.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect();
        Amounts { num_cpus: Some(0.0), resources: Some(resources), ..Amounts::default() }.resolve(1.0)
    }

    #[test]
    fn amounts_are_exact() {
        let (third, tenth) = (cpus(1.0 / 3.0).unwrap(), cpus(0.1).unwrap());
        let sum = |of: &Resources, times: usize| {
            let mut sum = Resources::default();
            (0..times).for_each(|_| sum.add(of));
            sum
        };
        let one = Demand::default();
        assert!(sum(&third, 3).is_within(&one) && !sum(&third, 4).is_within(&one));
        assert!(Demand::of(sum(&tenth, 10)).is_usual() && !Demand::of(sum(&tenth, 9)).is_usual());
        for ten_thousandths in 0..=20_000_u32 {
            let amount = f64::from(ten_thousandths) / 10_000.0;
            assert_eq!(cpus(amount).unwrap().units_of(CPU), u64::from(ten_thousandths));
        }
    }

    #[test]
    fn an_amount_that_cannot_be_is_an_error_that_names_it() {
        for amount in [-1.0, -0.0001, 0.000_01, f64::NAN, f64::INFINITY, 1e300] {
            let error = cpus(amount).unwrap_err();
            assert_eq!((error.field, error.value), ("num_cpus", format!("{amount} CPU")));
        }
        for name in ["", CPU, GPU, MEMORY, "GPU:0", "group:1"] {
            let error = custom(&[(name, 1.0)]).unwrap_err();
            assert_eq!((error.field, error.value), ("resources", format!("{name:?}")));
        }
        assert_eq!(custom(&[("disk", -1.0)]).unwrap_err().value, "-1 disk");
    }

    fn gpus(amount: f64) -> Result<Resources, BadAmount> {
        Amounts { num_cpus: Some(0.0), num_gpus: Some(amount), ..Amounts::default() }.resolve(1.0)
    }

    #[test]
    fn gpus_are_parts_of_one_or_whole() {
        for (amount, count) in [(0.0, 0), (0.0001, 1), (0.5, 1), (1.0, 1), (2.0, 2), (7.0, 7)] {
            assert_eq!(gpus(amount).unwrap().gpu_count(), count);
        }
        for amount in [1.5, 2.0001, -1.0] {
            let error = gpus(amount).unwrap_err();
            assert_eq!((error.field, error.value), ("num_gpus", format!("{amount} GPU")));
        }
    }

    #[test]
    fn a_part_goes_where_least_is_left_and_whole_gpus_are_those_that_are_whole() {
        let total = gpus(4.0).unwrap();
        let mut free = total.on_gpus(&[0, 1, 2, 3]).into_owned();
        let mut take = |amount: f64| {
            let demand = gpus(amount).unwrap();
            let best = demand.best_gpus(&total, &free);
            let taken = demand.on_gpus(&best);
            let fits = taken.is_within(&free);
            if fits {
                free.subtract(&taken);
            }
            (best, fits)
        };
        assert_eq!(take(0.5), (vec![0], true));
        assert_eq!(take(0.7), (vec![1], true));
        assert_eq!(take(0.25), (vec![1], true));
        assert_eq!(take(0.5), (vec![0], true));
        assert_eq!(take(2.0), (vec![2, 3], true));
        assert!(!take(1.0).1 && !take(0.1).1);
        assert_eq!(take(0.05), (vec![1], true));
    }

    #[test]
    fn zero_of_a_resource_is_none_of_it() {
        assert_eq!(cpus(0.0).unwrap(), Resources::default());
        assert_eq!(custom(&[("disk", 0.0)]).unwrap(), Resources::default());
        assert_eq!(Resources::default().to_string(), "nothing");
    }

    #[test]
    fn what_is_taken_and_given_back_leaves_the_same() {
        let total = custom(&[("disk", 2.0), ("tape", 1.0)]).unwrap();
        let mut free = total.clone();
        let (disk, tape) = (custom(&[("disk", 1.5)]).unwrap(), custom(&[("tape", 1.0)]).unwrap());
        free.subtract(&disk);
        free.subtract(&tape);
        assert_eq!(free.to_string(), "0.5 disk");
        assert_eq!(disk.beyond(&free).to_string(), "1 disk");
        assert!(!disk.is_within(&free) && !disk.overlaps(&tape) && disk.overlaps(&free));
        free.add(&tape);
        free.add(&disk);
        assert_eq!(free, total);
    }

    #[test]
    fn what_is_demanded_in_a_bundle_is_of_the_bundle_and_of_the_group() {
        let bundles: Arc<[Resources]> = [custom(&[("disk", 2.0)]).unwrap(), cpus(1.0).unwrap()].into();
        let mut free = Resources::of_group(7, &bundles);
        let place = |demand: &Resources, bundle| {
            Placement { group: 7, bundle, bundles: bundles.clone() }.place(demand)
        };
        let disk = custom(&[("disk", 1.5)]).unwrap();
        assert!(place(&disk, Some(1)).is_none() && place(&cpus(2.0).unwrap(), None).is_none());
        let in_bundle = place(&disk, Some(0)).unwrap();
        assert_eq!((in_bundle.group(), free.group(), disk.group()), (Some(7), Some(7), None));
        free.subtract(&in_bundle);
        assert!(!place(&disk, None).unwrap().is_within(&free), "also of any bundle");
        assert!(place(&cpus(1.0).unwrap(), None).unwrap().is_within(&free));
        assert!(place(&Resources::default(), None).unwrap().is_within(&free));
        let cpu = place(&cpus(1.0).unwrap(), Some(1)).unwrap();
        assert_eq!(cpu.without_cpus(), Resources::default().within_group(7, None));
        assert_eq!(cpu.to_string(), "1 CPU of placement group 7");
        assert!(free.of_session().is_nothing());
    }

    #[test]
    fn what_is_not_given_comes_from_the_defaults() {
        let given = Amounts { memory: Some(8), ..Amounts::default() };
        let defaults = Amounts { num_cpus: Some(2.0), memory: Some(4), ..Amounts::default() };
        let resources = given.or(defaults).resolve(1.0).unwrap();
        assert_eq!(resources.to_string(), "2 CPU, 8 bytes of memory");
        assert!(Demand::of(Amounts::default().resolve(1.0).unwrap()).is_usual());
    }
}
