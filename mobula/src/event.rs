//! Marks and spans in the timeline: from `mobula::event!`, and from the spans of the crate `tracing`.

/// Records an event of the program with an optional number, such as a position in its work: see [`mark`](crate::mark).
/// The number may have any integer type. A number outside the range of `i64` is recorded as the end of that range.
///
/// ```
/// let _mobula = mobula::init()?;
/// for epoch in 0..3u64 {
///     mobula::event!("epoch", epoch);
/// }
/// mobula::event!("done");
/// # Ok::<(), mobula::Error>(())
/// ```
#[macro_export]
macro_rules! event {
    ($name:expr $(,)?) => {
        $crate::mark($name, 0)
    };
    ($name:expr, $number:expr $(,)?) => {
        $crate::mark($name, $crate::__private::EventNumber::of($number))
    };
}

/// A number of an event.
pub trait EventNumber {
    /// The number in its recorded form.
    fn of(number: Self) -> i64;
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl EventNumber for $type {
            fn of(number: Self) -> i64 {
                #[allow(unused_comparisons, reason = "of types without a sign")]
                i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
            }
        }
    )*};
}
numbers!(i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize);

impl EventNumber for bool {
    fn of(number: Self) -> i64 {
        number.into()
    }
}

#[cfg(feature = "tracing")]
pub use self::layer::TracingLayer;

#[cfg(feature = "tracing")]
mod layer {
    use std::cell::RefCell;
    use std::fmt;

    use tracing::field::{Field, Visit};
    use tracing::span::Id;
    use tracing::{Event, Subscriber};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::Context;
    use tracing_subscriber::registry::LookupSpan;

    use crate::SpanGuard;

    thread_local! {
        /// The spans that this thread is in.
        static ENTERED: RefCell<Vec<(Id, SpanGuard)>> = const { RefCell::new(Vec::new()) };
    }

    /// A layer of `tracing-subscriber` that records spans and events of the crate `tracing` in the timeline of the
    /// session.
    ///
    /// A span is recorded from the moment that a thread enters it until the thread leaves it; the span of a future, at
    /// each poll. An event becomes a mark: its message is the name, and its first integer field is the number.
    ///
    /// ```
    /// use tracing_subscriber::layer::SubscriberExt as _;
    ///
    /// let _mobula = mobula::init()?;
    /// let subscriber = tracing_subscriber::registry().with(mobula::TracingLayer::new());
    /// tracing::subscriber::with_default(subscriber, || {
    ///     let _load = tracing::info_span!("load").entered();
    ///     tracing::info!(epoch = 3, "begun");
    /// });
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[derive(Debug, Default, Clone, Copy)]
    pub struct TracingLayer(());

    impl TracingLayer {
        /// The layer.
        ///
        /// ```
        /// use mobula::tracing_subscriber::layer::SubscriberExt as _;
        ///
        /// let subscriber = mobula::tracing_subscriber::registry().with(mobula::TracingLayer::new());
        /// # drop(subscriber);
        /// ```
        #[must_use]
        pub fn new() -> Self {
            Self(())
        }
    }

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TracingLayer {
        fn on_enter(&self, id: &Id, context: Context<'_, S>) {
            if let Some(span) = context.span(id) {
                let guard = crate::span(span.name());
                ENTERED.with_borrow_mut(|entered| entered.push((id.clone(), guard)));
            }
        }

        fn on_exit(&self, id: &Id, _context: Context<'_, S>) {
            let left = ENTERED.with_borrow_mut(|entered| {
                let at = entered.iter().rposition(|(its, _)| its == id)?;
                Some(entered.remove(at))
            });
            // It is recorded here.
            drop(left);
        }

        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let name = if fields.message.is_empty() { event.metadata().name() } else { &fields.message };
            crate::mark(name, fields.number.unwrap_or(0));
        }
    }

    #[derive(Default)]
    struct Fields {
        message: String,
        number: Option<i64>,
    }

    impl Visit for Fields {
        fn record_i64(&mut self, _: &Field, value: i64) {
            self.number.get_or_insert(value);
        }

        fn record_u64(&mut self, _: &Field, value: u64) {
            self.number.get_or_insert(i64::try_from(value).unwrap_or(i64::MAX));
        }

        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                self.message = format!("{value:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::EventNumber;

    #[test]
    fn numbers_beyond_the_range_are_its_ends() {
        assert_eq!(
            (u64::of(u64::MAX), i128::of(i128::MIN), i32::of(-1), bool::of(true)),
            (i64::MAX, i64::MIN, -1, 1)
        );
    }
}
