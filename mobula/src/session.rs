//! Starting a session from Rust: workers are copies of this program.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula_runtime::{Amounts, Error, Launch, Result, Session, SessionOptions};

use crate::host::call_span;
use crate::registry;
use crate::takeover::takes_over;

const THIS_PROGRAM: &str = "/proc/self/exe";

/// Starts a session with the default [options](Builder): a store, and one worker process for each CPU. All of it ends
/// when the returned guard is dropped, also by a panic, and when this process is killed.
///
/// ```
/// let _mobula = mobula::init()?;
/// let three = mobula::put(&3)?;
/// assert_eq!(three.get()?, 3);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// This is `ray.init()` for one machine. Bind the guard to a name: `let _ = mobula::init()?` drops it at once.
///
/// It starts the store's process and returns once this process is connected to it: some milliseconds. The workers start
/// meanwhile. It raises the soft limit of open descriptors of this process, to 65,536 where the hard limit allows that.
/// Processes that this process starts from then on inherit the limit.
///
/// # Errors
/// - [`Error::AlreadyInitialized`](crate::Error::AlreadyInitialized): this process has a session.
/// - [`Error::InWorker`](crate::Error::InWorker): this process is a worker, which is a part of its driver's session.
/// - [`Error::Start`](crate::Error::Start): the system refused a process, a descriptor or a directory.
/// - [`ClientError::ForkedChild`](crate::ClientError::ForkedChild): this process was forked while its parent had a
///   session.
pub fn init() -> Result<Session> {
    Builder::new().init()
}

/// Joins the session that this process has, or starts one as [`init`] does. The session ends when the last of its
/// guards is dropped.
///
/// This is for tests, which run at the same time in one process, and for libraries that need a session and do not know
/// whether their program has one:
///
/// ```
/// fn test_of_one_thing() -> mobula::Result<()> {
///     let _mobula = mobula::init_or_join()?;
///     assert_eq!(mobula::put(&1)?.get()?, 1);
///     Ok(())
/// }
///
/// // The test harness calls each in a thread of its own.
/// let another = std::thread::spawn(test_of_one_thing);
/// test_of_one_thing()?;
/// another.join().expect("it does not panic")?;
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// As [`init`], without [`Error::AlreadyInitialized`](crate::Error::AlreadyInitialized).
pub fn init_or_join() -> Result<Session> {
    Builder::new().init_or_join()
}

/// Stops a session that drivers share. Its address is `auto`, its directory, or its store's socket, as in
/// [`Builder::address`]. All of its processes end, except the drivers. From then on, the drivers' operations fail with
/// [`Failure::SessionOver`](crate::Failure::SessionOver).
///
/// ```
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let directory = directory.path();
/// let address = mobula::Builder::new().session_dir(directory).start()?;
/// mobula::stop(&address)?;
/// assert!(!address.exists());
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) if no such session is running; [`Error::Start`](crate::Error::Start) if its
/// process cannot be reached.
pub fn stop(address: impl AsRef<Path>) -> Result<()> {
    mobula_runtime::stop_shared(address.as_ref())
}

/// The options of a session.
///
/// ```
/// let _mobula = mobula::Builder::new().workers(1).capacity_bytes(64 << 20).init()?;
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// All builders of this crate ([`TaskOptions`](crate::TaskOptions) and [`ActorOptions`](crate::ActorOptions) too) have
/// the same style: `new` has the defaults, each setter has the name of its option, takes the builder and returns it. So
/// a chain needs no variable. An invalid value is an error of the call that uses the options.
///
/// # Environment variables
/// They give the options that the program does not set. A variable that is not set, or is empty, gives nothing. An
/// invalid value is an error of [`init`](Self::init) that names the variable.
///
/// | variable | option | example |
/// |---|---|---|
/// | `MOBULA_ADDRESS` | [`address`](Self::address) | `auto` |
/// | `MOBULA_NUM_CPUS` | [`num_cpus`](Self::num_cpus), unless the program sets `workers` | `4`, `0.5` |
/// | `MOBULA_NUM_GPUS` | [`num_gpus`](Self::num_gpus) | `2` |
/// | `MOBULA_WORKERS` | [`workers`](Self::workers) | `4` |
/// | `MOBULA_MEMORY` | [`memory`](Self::memory) | `1073741824`, `1024M`, `1G` |
/// | `MOBULA_RESOURCES` | [`resources`](Self::resources) | `disk=1,licence=2.5` |
/// | `MOBULA_MAX_PROCESSES` | [`max_processes`](Self::max_processes) | `100` |
/// | `MOBULA_CAPACITY` | [`capacity_bytes`](Self::capacity_bytes) | `64M` |
/// | `MOBULA_SPILL_DIRECTORY` | [`spill_directory`](Self::spill_directory) | `/var/tmp` |
/// | `MOBULA_SPILL_BYTES_MAX` | [`spill_bytes_max`](Self::spill_bytes_max) | `8G`, `0` |
/// | `MOBULA_SESSION_DIR` | [`session_dir`](Self::session_dir) | `/run/user/1000/mobula` |
/// | `MOBULA_NAMESPACE` | [`namespace`](Self::namespace) | `tests` |
/// | `MOBULA_FORWARD_OUTPUT` | [`forward_output`](Self::forward_output) | `0`, `1` |
/// | `MOBULA_LOG_DIR` | [`log_dir`](Self::log_dir) | `/var/log/mobula` |
/// | `MOBULA_LOG_BYTES_MAX` | [`log_bytes_max`](Self::log_bytes_max) | `1G`, `0` |
/// | `MOBULA_SPIN_US` | [`spin`](Self::spin), in microseconds | `30` |
/// | `MOBULA_MEMORY_USAGE_THRESHOLD` | [`memory_usage_threshold`](Self::memory_usage_threshold) | `0.95` |
/// | `MOBULA_MEMORY_MONITOR_INTERVAL_MS` | [`memory_monitor_interval`] | `250`, `0` |
/// | `MOBULA_TASK_OOM_RETRIES` | [`task_oom_retries`](Self::task_oom_retries) | `3`, `unlimited` |
/// | `MOBULA_EVENTS` | none: what each process [records](crate::state) | `usual`, `all`, `none` |
/// | `MOBULA_CALL_SITES` | none: whether it records where each object is made | `0`, `1` |
///
/// [`memory_monitor_interval`]: Self::memory_monitor_interval
///
/// After a number, `K` stands for 1024 bytes, and each of `M`, `G` and `T` for 1024 times the one before.
#[derive(Debug, Clone)]
#[must_use = "no session starts before `init` is called"]
pub struct Builder {
    options: SessionOptions,
    worker_program: Option<PathBuf>,
}

impl Default for Builder {
    fn default() -> Self {
        let options = SessionOptions::new(registry::fingerprint(), Launch::program(THIS_PROGRAM));
        Self { options, worker_program: None }
    }
}

impl Builder {
    /// The defaults.
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().init()?; // the same as `mobula::init()?`
    /// assert!(mobula::is_initialized());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// The worker processes that are kept: this number starts with the session, and exists as long as it lasts. More
    /// start while [resources](Self::num_cpus) are free for more tasks, also while tasks wait for results of others;
    /// they end when they have been idle for a second. From 1 to 1000. Default: one for each CPU.
    ///
    /// If the [number of CPUs](Self::num_cpus) is not given, the session has one for each worker. Then the same number
    /// of tasks run at a time, unless their options [demand](crate::TaskOptions::num_cpus) more or less.
    ///
    /// ```
    /// #[mobula::remote]
    /// fn pid() -> u32 {
    ///     std::process::id()
    /// }
    ///
    /// let _mobula = mobula::Builder::new().workers(1).init()?;
    /// assert_eq!(pid::remote().get()?, pid::remote().get()?); // there is one worker, so both run in it
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn workers(mut self, workers: usize) -> Self {
        self.options.workers = Some(workers);
        self
    }

    /// The number of CPUs that tasks and actors can demand. A task [demands](crate::TaskOptions::num_cpus) one by
    /// default, so this number of tasks run at the same time. Default: one for each of the [`workers`](Self::workers),
    /// if their number is given; otherwise one for each core that this process may run on, by its affinity mask and the
    /// quotas of its control groups.
    ///
    /// ```
    /// use mobula::{Error, Failure};
    ///
    /// #[mobula::remote(num_cpus = 3)]
    /// fn heavy() {}
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(2).init()?;
    /// let error = heavy::remote().get().unwrap_err();
    /// assert!(matches!(error, Error::Failed(Failure::NeverFits { .. })), "{error}");
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// CPUs are only counted. The number may be more or less than the machine has.
    pub fn num_cpus(mut self, cpus: impl Into<f64>) -> Self {
        self.options.amounts.num_cpus = Some(cpus.into());
        self
    }

    /// The number of GPUs that tasks and actors can demand; see
    /// [`TaskOptions::num_gpus`](crate::TaskOptions::num_gpus). Default: those that the variable `CUDA_VISIBLE_DEVICES`
    /// names, or, if it is not set, those of the machine, as NVIDIA's driver shows them.
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().num_gpus(4).init()?;
    /// assert_eq!(mobula::cluster_resources()?.num_gpus(), 4.0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// GPUs are only counted: for tests, the number may be more than the machine has. It cannot be more than
    /// `CUDA_VISIBLE_DEVICES` names. With 0, that variable stays in workers as it is; otherwise, each worker sees the
    /// GPUs that it was given, and no others.
    pub fn num_gpus(mut self, gpus: u32) -> Self {
        self.options.amounts.num_gpus = Some(gpus.into());
        self
    }

    /// The memory that tasks and actors can demand, in bytes; see [`TaskOptions::memory`](crate::TaskOptions::memory).
    /// Memory is only counted. Default: the memory of the machine, or of the control group (container) that this
    /// process is in, without the [store's](Self::capacity_bytes).
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().memory(8 << 30).init()?;
    /// assert_eq!(mobula::cluster_resources()?.memory(), 8 << 30);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn memory(mut self, bytes: u64) -> Self {
        self.options.amounts.memory = Some(bytes);
        self
    }

    /// Resources of other kinds, by names that the program chooses, and how much of each there is. Tasks and actors
    /// [demand](crate::TaskOptions::resources) some of them. Default: none.
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().resources([("licence", 2), ("disk", 1)]).init()?;
    /// assert_eq!(mobula::cluster_resources()?.get("licence"), 2.0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn resources(
        mut self,
        amounts: impl IntoIterator<Item = (impl Into<String>, impl Into<f64>)>,
    ) -> Self {
        self.options.amounts.resources = Some(Amounts::named(amounts));
        self
    }

    /// The number of processes that the session may have at a time: workers, also those whose calls only wait for
    /// others, and actors. Beyond that, calls wait until processes become free. If no process can become free, because
    /// all wait for others, one of the calls that need another process fails with
    /// [`Failure::ProcessLimit`](crate::Failure::ProcessLimit). So does an actor that would leave fewer than
    /// [`workers`](Self::workers) for calls.
    ///
    /// ```
    /// use mobula::{Error, Failure};
    ///
    /// struct Counter(u64);
    ///
    /// #[mobula::remote]
    /// impl Counter {
    ///     fn new() -> Self {
    ///         Counter(0)
    ///     }
    ///     fn increment(&mut self) -> u64 {
    ///         self.0 += 1;
    ///         self.0
    ///     }
    /// }
    ///
    /// let _mobula = mobula::Builder::new().workers(1).max_processes(2).init()?;
    /// let (fits, is_too_many) = (Counter::remote(), Counter::remote());
    /// assert_eq!(fits.increment().get()?, 1);
    /// let error = is_too_many.increment().get().unwrap_err();
    /// assert!(matches!(error, Error::Failed(Failure::ProcessLimit { limit: 2, .. })));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// The limit is lower while this process has too few descriptors (`RLIMIT_NOFILE`, 10 for each process): the
    /// session starts no process that it could not serve.
    ///
    /// Default: the room in the limits of this process, its control groups and the machine: descriptors (10 in this
    /// process for each), processes and threads, and 16 MiB of memory for each. More than `workers`, at most 30,000.
    pub fn max_processes(mut self, processes: usize) -> Self {
        self.options.max_processes = Some(processes);
        self
    }

    /// The capacity of the store, in bytes. Default: 30 % of the memory of the machine, or of the control group
    /// (container) that this process is in. At least 1, at most that memory.
    ///
    /// ```
    /// let session = mobula::Builder::new().capacity_bytes(64 << 20).init()?;
    /// assert_eq!(session.client().capacity_bytes(), 64 << 20);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// The memory is not taken in advance: a process leases it piece by piece when it puts objects. An object that is
    /// larger than the capacity is refused: [`Refusal::TooLarge`](crate::Refusal::TooLarge).
    pub fn capacity_bytes(mut self, bytes: u64) -> Self {
        self.options.capacity_bytes = Some(bytes);
        self
    }

    /// The directory for objects that are held but not in use when the store is full. The store makes a directory of
    /// its own in it, and leaves nothing behind. It should be on a disk. Default: `/var/tmp`, if it exists.
    ///
    /// ```
    /// # let disk = tempfile::tempdir().expect("a directory");
    /// # let disk = disk.path();
    /// let _mobula = mobula::Builder::new().capacity_bytes(24 << 20).spill_directory(disk).init()?;
    /// // 40 MiB in a store of 24: the first ones go to the disk, and come back when they are read.
    /// let megabytes: Vec<_> = (0..40).map(|n| mobula::put(&vec![n; 1 << 20])).collect::<mobula::Result<_>>()?;
    /// assert_eq!(megabytes[0].get()?, vec![0_u8; 1 << 20]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn spill_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.options.spill_directory = Some(directory.into());
        self
    }

    /// The most bytes that such objects may take on the disk. With 0, no object goes there, and a full store stays
    /// full. Default: eight times the capacity.
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().spill_bytes_max(0).init()?; // in memory, or not at all
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn spill_bytes_max(mut self, bytes: u64) -> Self {
        self.options.spill_bytes_max = Some(bytes);
        self
    }

    /// The directory in which the session's own directory is made, with the store's socket. Default:
    /// `$XDG_RUNTIME_DIR/mobula`, or the first of `mobula-UID` in `$TMPDIR`, `/tmp`, `/var/tmp` and `/dev/shm` that can
    /// be made.
    ///
    /// ```
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let directory = directory.path();
    /// let session = mobula::Builder::new().session_dir(directory).init()?;
    /// assert!(session.socket().starts_with(directory));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn session_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.options.session_dir = Some(directory.into());
        self
    }

    /// The namespace of actors' names for actors whose options name none. Default: `default`. See
    /// [`ActorOptions::namespace`](crate::ActorOptions::namespace).
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().namespace("tests").init()?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.options.namespace = Some(namespace.into());
        self
    }

    /// Joins a session that drivers share, which [`start`](Self::start) or the command `mobula start` has started:
    /// `auto` is the one of this user's that was started last; a path is a session's directory, or its store's socket.
    /// Default: this process starts a session of its own.
    ///
    /// ```
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let directory = directory.path();
    /// let address = mobula::Builder::new().num_cpus(2).session_dir(directory).start()?;
    /// // In any number of processes, of any programs:
    /// let session = mobula::Builder::new().address(&address).init()?;
    /// assert_eq!(mobula::cluster_resources()?.num_cpus(), 2.0);
    /// drop(session); // ends what this process has started
    /// mobula::stop(&address)?; // ends the session
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// Each driver has workers of its own, which run its program, in its environment, and print to its output. They end
    /// with it, and so do its tasks and its actors. Drivers share objects by name
    /// ([`Session::client`](crate::Session::client)), the memory, and the resources: each driver gets the same share,
    /// if it uses it. The resources of the session cannot be set here: [`num_cpus`](Self::num_cpus),
    /// [`num_gpus`](Self::num_gpus), [`memory`](Self::memory), [`resources`](Self::resources),
    /// [`capacity_bytes`](Self::capacity_bytes) and the options of spilling are then errors. Their environment
    /// variables are not read.
    pub fn address(mut self, address: impl Into<PathBuf>) -> Self {
        self.options.address = Some(address.into());
        self
    }

    /// Whether the output of workers and actors appears in this process's output, each line with a prefix that names
    /// the process. If not, it is only in the [log files](Self::log_bytes_max). Default: yes.
    ///
    /// ```
    /// #[mobula::remote]
    /// fn noisy() -> u32 {
    ///     println!("this is not shown");
    ///     1
    /// }
    ///
    /// let _mobula = mobula::Builder::new().forward_output(false).init()?;
    /// assert_eq!(noisy::remote().get()?, 1);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn forward_output(mut self, forward: bool) -> Self {
        self.options.forward_output = Some(forward);
        self
    }

    /// The directory that keeps the log files of workers after the end of the session. They are in a directory with the
    /// session's name there, which Mobula never removes. `mobula logs --dir` reads them. Default: none; the log files
    /// are removed with the session.
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let kept = directory.path().join("logs");
    /// let _mobula = mobula::Builder::new().log_dir(&kept).init()?;
    /// assert_eq!(kept.read_dir().unwrap().count(), 1);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn log_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.options.log_dir = Some(directory.into());
        self
    }

    /// The most bytes of log files of workers, which `mobula logs` shows. One process may have an eighth of them. The
    /// oldest output is removed first, and a line in the file says so. With 0 there are no log files. A thread of this
    /// process writes them, so they cost the workers nothing. Default: 64 MiB.
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().log_bytes_max(1 << 30).init()?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn log_bytes_max(mut self, bytes: u64) -> Self {
        self.options.log_bytes_max = Some(bytes);
        self
    }

    /// The longest time for which a waiting process of the session looks for mail before it sleeps. With zero it sleeps
    /// at once. Default: 30 µs, about the time that the answer of a sleeping process takes.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// // Leaves the cores to other programs, and makes short calls slower.
    /// let _mobula = mobula::Builder::new().spin(Duration::ZERO).init()?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// A process looks for a shorter time, or not at all, if recent looks found nothing, as on a machine whose cores
    /// are all busy.
    pub fn spin(mut self, spin: Duration) -> Self {
        self.options.spin = Some(spin);
        self
    }

    /// The share of the memory that may be in use before the session ends one of its processes. It is the memory of the
    /// machine, or of a control group (container) that this process is in: the one with less memory left. More than 0,
    /// at most 1. Default: 0.95.
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().memory_usage_threshold(0.9).init()?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// Otherwise the kernel would end some process when there is no memory left, perhaps this one, or the store. Memory
    /// of other programs counts, too, and so do the store's objects. File cache does not count. If the kernel reports
    /// that all tasks stall for lack of memory (PSI) for half of the time, nine tenths of the share are enough.
    ///
    /// # The process that is ended
    /// An idle one that has memory goes first. Otherwise, it runs a call that may be retried
    /// ([`max_retries`](crate::TaskOptions::max_retries) is more than 0) or an actor that may be restarted, if there is
    /// one. Of these, the session chooses the caller that has most of them, and of its processes, the one that got its
    /// work last. The time of the work is that of the worker's lease, which a caller keeps for calls that follow each
    /// other closely. A process that uses less than a thousandth of the memory, or less than 4 MiB, is not ended: that
    /// would not help.
    ///
    /// The call is [retried](Self::task_oom_retries), or fails with
    /// [`ExitReason::OutOfMemory`](crate::ExitReason::OutOfMemory) in
    /// [`Failure::WorkerDied`](crate::Failure::WorkerDied) or [`Failure::ActorDied`](crate::Failure::ActorDied). An
    /// actor is restarted as after any other death. A line on standard error names the processes that use most.
    ///
    /// The next process is ended only when this one has ended and memory is still short.
    pub fn memory_usage_threshold(mut self, share: f64) -> Self {
        self.options.memory_usage_threshold = Some(share);
        self
    }

    /// The time between two looks at the memory that is in use. With zero there are no looks, and no process is ended.
    /// Default: 250 ms. A look takes about one system call for the machine, and three for each control group that has a
    /// limit.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let _mobula = mobula::Builder::new().memory_monitor_interval(Duration::ZERO).init()?; // the kernel sees to it
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn memory_monitor_interval(mut self, interval: Duration) -> Self {
        self.options.memory_monitor_interval = Some(interval);
        self
    }

    /// How often a call is retried because its process was ended for lack of memory. Default:
    /// [`UNLIMITED`](crate::UNLIMITED).
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().task_oom_retries(3).init()?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// These retries do not count as [`max_retries`](crate::TaskOptions::max_retries), but a call with `max_retries` 0
    /// is not retried for this reason either. The first retry comes after about a second, and the time doubles up to a
    /// minute. If no other call of the same caller was left to end, the call is not retried, because it would not fit
    /// into memory then either.
    pub fn task_oom_retries(mut self, retries: u32) -> Self {
        self.options.task_oom_retries = Some(retries);
        self
    }

    /// The directory under which `proc` and `sys` say how much memory is in use. For tests of this project.
    #[doc(hidden)]
    pub fn memory_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.options.memory_root = root.into();
        self
    }

    /// The program that workers run. Default: this one. It must be the same build: a worker of another build is
    /// refused.
    ///
    /// ```
    /// let program = std::env::current_exe().expect("the path of this program");
    /// let _mobula = mobula::Builder::new().worker_program(program).init()?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// If mobula is in a library that this program has loaded while it ran (`dlopen`), there is no default: see
    /// [`become_worker`](crate::become_worker).
    pub fn worker_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.worker_program = Some(program.into());
        self
    }

    /// Starts the session, as [`init`](fn@init) does.
    ///
    /// ```
    /// use mobula::{Builder, Error};
    ///
    /// let error = Builder::new().workers(0).init().unwrap_err();
    /// assert!(matches!(error, Error::Config { field: "workers", .. }));
    /// assert_eq!(error.to_string(), "workers cannot be 0: between 1 and 1000 processes");
    /// ```
    ///
    /// # Errors
    /// Those of [`init`](fn@init), and [`Error::Config`](crate::Error::Config) for an option that cannot be.
    pub fn init(self) -> Result<Session> {
        call_span::send_contexts();
        mobula_runtime::start(self.into_options()?)
    }

    /// Starts a session that drivers share, and returns its address: the socket of its store. It outlives this process,
    /// until [`stop`](crate::stop) ends it. This process is no driver of it, unless it [joins](Self::address). The
    /// command `mobula start` does the same.
    ///
    /// ```
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let directory = directory.path();
    /// let address = mobula::Builder::new().num_cpus(2).session_dir(directory).start()?;
    /// assert!(mobula::sessions().contains(&address));
    /// mobula::stop(&address)?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// The session is one process, which has the store and divides the resources among drivers. When it is killed,
    /// drivers continue with the resources that they have, and one of them starts it again. If there is no driver then,
    /// the session is over.
    ///
    /// # Errors
    /// [`Error::Start`](crate::Error::Start), and [`Error::Config`](crate::Error::Config) for an option that cannot be.
    pub fn start(self) -> Result<PathBuf> {
        mobula_runtime::start_shared(self.into_options()?)
    }

    /// Joins the session that this process has, which stays as it was configured, or starts this one. Waits for one
    /// that is starting or ending. See [`init_or_join`](fn@init_or_join).
    ///
    /// ```
    /// use mobula::Builder;
    ///
    /// let first = Builder::new().capacity_bytes(64 << 20).init_or_join()?;
    /// let joined = Builder::new().capacity_bytes(32 << 20).init_or_join()?;
    /// assert_eq!(joined.client().capacity_bytes(), 64 << 20); // the session of the first one
    /// drop(first);
    /// assert!(mobula::is_initialized()); // it lasts as long as one of its guards
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`init`](Self::init), without [`Error::AlreadyInitialized`](crate::Error::AlreadyInitialized).
    pub fn init_or_join(self) -> Result<Session> {
        call_span::send_contexts();
        mobula_runtime::start_or_join(self.into_options()?)
    }

    fn into_options(self) -> Result<SessionOptions> {
        let Self { mut options, worker_program } = self;
        match worker_program {
            Some(program) => {
                options.launch = Launch::program(program);
                if !takes_over() {
                    options.store_launch = options.launch.clone();
                }
            }
            None if takes_over() => {}
            None => {
                let expected = "mobula is in a library that this program has loaded, or the C library is \
                                linked statically, so that its copies do not become workers by themselves: \
                                call `mobula::become_worker()` first in `main`, or name a program here that \
                                does";
                return Err(Error::Config {
                    field: "worker_program",
                    value: "this program".into(),
                    expected: expected.into(),
                });
            }
        }
        Ok(options)
    }
}
