//! Calls of remote functions, as the macros' code puts them together.

use mobula_runtime::{ArgumentList, Ref, Returns, TaskOptions, call_function, call_streaming};

use crate::object_ref::ObjectRef;
use crate::ref_stream::ObjectRefStream;
use crate::registry::Function;
use crate::results::ReturnTuple;

/// How many items of a stream are in flight at most where nothing is said about that.
pub const IN_FLIGHT_MAX: u32 = 128;

/// The options of a call: the caller's, and the attribute's where the caller left them open.
#[doc(hidden)]
pub fn with_defaults(options: TaskOptions, defaults: TaskOptions) -> TaskOptions {
    options.or(defaults)
}

/// A call of a remote function, being put together by the macros' code.
#[derive(Debug)]
#[must_use = "no call is made before it is submitted"]
pub struct Call {
    function: &'static Function,
    options: TaskOptions,
    arguments: ArgumentList,
}

impl AsMut<ArgumentList> for Call {
    fn as_mut(&mut self) -> &mut ArgumentList {
        &mut self.arguments
    }
}

impl Call {
    /// A call without arguments yet.
    pub fn new(function: &'static Function, options: TaskOptions) -> Self {
        Self { function, options, arguments: ArgumentList::default() }
    }

    /// Makes the call; its result is one object.
    pub fn submit<T>(self) -> ObjectRef<T> {
        ObjectRef::first_of(self.make(Returns::One))
    }

    /// Makes the call; each element of its result is an object.
    pub fn submit_tuple<T: ReturnTuple>(self) -> T::References {
        T::references(&mut self.make(Returns::Tuple(T::COUNT)))
    }

    /// Makes the call; each of the `count` elements of its result is an object.
    pub fn submit_list<T>(self, count: usize) -> Vec<ObjectRef<T>> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.make(Returns::List(count)).map(ObjectRef::new).collect()
    }

    /// Makes the call; its items are objects that come while it runs.
    pub fn submit_stream<T>(self, max_in_flight: u32) -> ObjectRefStream<T> {
        let Self { function, options, arguments } = self;
        ObjectRefStream::new(call_streaming(function.definition(), arguments, max_in_flight, options))
    }

    fn make(self, returns: Returns) -> impl Iterator<Item = Ref> {
        call_function(self.function.definition(), self.arguments, returns, self.options)
    }
}
