//! Calls of remote functions. The macros' code builds them.

use mobula_runtime::{ArgumentList, Ref, Returns, TaskOptions, call_function, call_streaming};

use crate::object_ref::ObjectRef;
use crate::ref_stream::ObjectRefStream;
use crate::registry::Function;
use crate::results::ReturnTuple;

/// The default limit of items of a stream in flight.
pub const IN_FLIGHT_MAX: u32 = 128;

impl Function {
    /// Calls the function; its result is one object.
    #[inline]
    pub fn call<T>(&'static self, options: TaskOptions, arguments: ArgumentList) -> ObjectRef<T> {
        ObjectRef::first_of(self.make(options, arguments, Returns::One))
    }

    /// Calls the function; each element of its result is an object.
    pub fn call_tuple<T: ReturnTuple>(
        &'static self,
        options: TaskOptions,
        arguments: ArgumentList,
    ) -> T::References {
        T::references(&mut self.make(options, arguments, Returns::Tuple(T::COUNT)))
    }

    /// Calls the function; each of the `count` elements of its result is an object.
    pub fn call_list<T>(
        &'static self,
        options: TaskOptions,
        arguments: ArgumentList,
        count: usize,
    ) -> Vec<ObjectRef<T>> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.make(options, arguments, Returns::List(count)).map(ObjectRef::new).collect()
    }

    /// Calls the function; its items are objects that come while it runs.
    pub fn call_streaming<T>(
        &'static self,
        options: TaskOptions,
        arguments: ArgumentList,
        max_in_flight: u32,
    ) -> ObjectRefStream<T> {
        ObjectRefStream::new(call_streaming(self.definition(), arguments, max_in_flight, options))
    }

    #[inline]
    fn make(
        &'static self,
        options: TaskOptions,
        arguments: ArgumentList,
        returns: Returns,
    ) -> impl Iterator<Item = Ref> {
        call_function(self.definition(), arguments, returns, options)
    }
}
