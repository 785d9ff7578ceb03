//! Calls of Python functions.
//!
//! A function is named by its module and its name there. It runs in a worker that is a Python interpreter with the
//! package `mobula`. Values are passed as between Rust programs. Numbers, text, bytes, lists and maps become Python's
//! own. A [`Tensor`](crate::value::Tensor) becomes an array of numpy, and `Arrow` data becomes data of `pyarrow`, both
//! without a copy. An exception becomes a [`TaskError`](crate::TaskError) with the traceback in its message.
//!
//! ```no_run
//! use mobula::python;
//! use mobula::value::Tensor;
//!
//! let _mobula = mobula::init()?;
//! let numbers = Tensor::from(vec![1.0, 2.0, 6.0]);
//! let mean = python::function("numpy:mean").arg(&numbers).call::<f64>();
//! assert_eq!(mean.get()?, 3.0);
//! # Ok::<(), mobula::Error>(())
//! ```

use std::fmt;
use std::path::PathBuf;

use mobula_runtime::{ArgumentList, Definition, Key, Launch, Name, Returns, TaskOptions, call_function};
use serde::Serialize;

use crate::object_ref::ObjectRef;
use crate::value;

/// The key of the function that calls others by their names, in a Python worker.
const BY_NAME: Key = Key::exported("mobula.call");
/// The interpreter's arguments. The role follows as the last one.
const PROGRAM: &str = "from mobula._worker import main; main('default')";

/// A Python function, by its module and its name there, as in `"statistics:mean"`; a name may have dots, as in
/// `"package.module:Class.method"`. Modules are found where `python3 -c` finds them: in the directory of the driver, in
/// `PYTHONPATH` and in the interpreter's own packages.
///
/// ```
/// let call = mobula::python::function("statistics:mean").arg(&vec![1.0, 2.0]);
/// assert!(format!("{call:?}").contains("statistics:mean"));
/// ```
pub fn function(name: impl Into<String>) -> PythonCall {
    let name = name.into();
    let mut arguments = ArgumentList::default();
    push(&mut arguments, &name);
    PythonCall { name, interpreter: None, options: TaskOptions::new(), arguments }
}

/// The builder of a call of a Python function, from [`function`].
///
/// ```
/// let call = mobula::python::function("math:hypot").arg(&3.0).arg(&4.0);
/// assert!(format!("{call:?}").contains("math:hypot"));
/// ```
#[must_use = "no call is made before `call` is"]
pub struct PythonCall {
    name: String,
    interpreter: Option<PathBuf>,
    options: TaskOptions,
    arguments: ArgumentList,
}

impl fmt::Debug for PythonCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonCall").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PythonCall {
    /// Adds a value to the arguments. It is encoded now.
    ///
    /// ```
    /// let call = mobula::python::function("builtins:sorted").arg(&vec![3, 1, 2]);
    /// ```
    pub fn arg<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        push(&mut self.arguments, value);
        self
    }

    /// Adds the value of a reference to the arguments. The call waits for the value, which is not copied.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let numbers = mobula::put(&vec![3, 1, 2])?;
    /// let call = mobula::python::function("builtins:sorted").reference(&numbers);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn reference<T>(mut self, reference: &ObjectRef<T>) -> Self {
        self.arguments.push_reference(&reference.to);
        self
    }

    /// Sets the options of the call.
    ///
    /// ```
    /// use mobula::{TaskOptions, python};
    ///
    /// let call = python::function("os:getcwd").options(TaskOptions::new().working_dir("/"));
    /// ```
    pub fn options(mut self, options: TaskOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the interpreter, which has the package `mobula`. Default: the environment variable `MOBULA_PYTHON`, or
    /// `python3`.
    ///
    /// ```
    /// let call = mobula::python::function("os:getcwd").interpreter(".venv/bin/python");
    /// ```
    pub fn interpreter(mut self, path: impl Into<PathBuf>) -> Self {
        self.interpreter = Some(path.into());
        self
    }

    /// Makes the call. Its result is what the function returns, read as a `T`.
    ///
    /// The first call waits for an interpreter to start. Other calls with the same options go to the same processes.
    ///
    /// ```no_run
    /// let _mobula = mobula::init()?;
    /// let five = mobula::python::function("math:hypot").arg(&3.0).arg(&4.0).call::<f64>();
    /// assert_eq!(five.get()?, 5.0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn call<T>(self) -> ObjectRef<T> {
        let Self { name, interpreter, options, arguments } = self;
        let interpreter = interpreter.or_else(|| std::env::var_os("MOBULA_PYTHON").map(PathBuf::from));
        let mut launch = Launch::program(interpreter.unwrap_or_else(|| "python3".into()));
        launch.arguments = vec!["-c".into(), PROGRAM.into()];
        launch.is_renamed = false;
        let function = Definition { key: BY_NAME, name: Name::Shared(name.into()) };
        ObjectRef::first_of(call_function(function, arguments, Returns::One, options.program(launch)))
    }
}

fn push<T: Serialize + ?Sized>(arguments: &mut ArgumentList, value: &T) {
    if value::context::is_there() {
        arguments.push_value(|out| value::append(value, out));
    } else {
        arguments.fail(mobula_runtime::Error::ThreadEnding);
    }
}
