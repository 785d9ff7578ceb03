//! Traces of [OpenTelemetry](https://opentelemetry.io) that continue in other processes. Needs the feature
//! `opentelemetry`.
//!
//! A call that is made within a sampled span takes the context of the span to the process that runs the call. There,
//! Mobula makes a span for the call:
//!
//! - its parent is the span of the caller;
//! - its name is that of the function (`module::function`) or of the method (`module::Class::method`);
//! - its kind is *consumer*;
//! - if the call fails, its status has the text of the error.
//!
//! While the call runs, its span is the active one. So the calls that it makes belong to the
//! same trace, and so do the spans that it makes itself.
//!
//! Mobula uses OpenTelemetry's interface. The program chooses the SDK and an exporter, and sets the global tracer
//! provider: in its `main`, and in each worker by a function with
//! [`#[mobula::worker_init]`](macro@crate::worker_init). The provider must be of the version of the crate
//! `opentelemetry` that Mobula uses, which this module exports.
//!
//! ```
//! use mobula::opentelemetry::trace::{TraceContextExt, Tracer};
//! use mobula::opentelemetry::{Context, global};
//! use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
//!
//! #[mobula::worker_init]
//! fn set_tracer_provider() {
//!     let exporter = InMemorySpanExporter::default(); // a program exports to a collector
//!     global::set_tracer_provider(SdkTracerProvider::builder().with_simple_exporter(exporter).build());
//! }
//!
//! /// The trace of the span that is active.
//! fn trace(context: &Context) -> String {
//!     context.span().span_context().trace_id().to_string()
//! }
//!
//! #[mobula::remote]
//! fn trace_in_worker() -> String {
//!     Context::map_current(trace)
//! }
//!
//! let _mobula = mobula::init()?;
//! set_tracer_provider();
//! global::tracer("example").in_span("request", |context| {
//!     assert_eq!(trace_in_worker::remote().get()?, trace(&context));
//!     Ok::<(), mobula::Error>(())
//! })?;
//! # Ok::<(), mobula::Error>(())
//! ```
//!
//! The span of a call lasts as long as its function runs:
//!
//! - of a [stream](crate::ObjectRefStream), until its last item;
//! - of an `async` method, until its future is ready. The span is active whenever the future is polled;
//! - of a method with a [`Reply`](crate::Reply), until the method returns, also if the answer comes later.
//!
//! A span ends before the caller gets the result. Each attempt at a call that is retried has a span of its own with the
//! same parent, and so has each run of the constructor of an actor that is restarted. A process that dies loses the
//! spans that have not ended.
//!
//! # Exporters in workers
//!
//! A worker ends without notice when its session does not need it any more, so a processor that collects spans in
//! batches loses the last ones. Use a *simple* processor in workers (`with_simple_exporter`), which exports each span
//! when it ends, before the result goes to the caller. Or keep the provider in a static, and call its `force_flush` at
//! the end of calls; this does not yet export the span of the call itself.
//!
//! # What does not travel
//!
//! Baggage, the trace state, and spans that are not sampled: then the worker makes no span. Neither does a call to or
//! from Python carry a context.
//!
//! # Cost
//!
//! A call outside a span costs a look at the thread's context, and adds no byte to the record. A call within a span
//! adds 32 bytes to its record, and one allocation.

#[doc(no_inline)]
pub use ::opentelemetry::*;

use std::borrow::Cow;

use mobula_runtime::{CallContext, Failure};

use self::trace::{SpanContext, SpanKind, Status, TraceContextExt as _, TraceState, Tracer as _};
use crate::host::user_code::guarded;

/// The name of the tracer that makes the spans of calls.
const TRACER: &str = "mobula";

/// The version of the binary form of a trace context, its first byte. Trace, span and flags follow.
const VERSION: u8 = 0;

/// The context that a call carries which this thread makes now.
pub(crate) fn current() -> Option<CallContext> {
    Context::map_current(context_of)
}

fn context_of(context: &Context) -> Option<CallContext> {
    // Nearly always there is none.
    if !context.has_active_span() || context.is_telemetry_suppressed() {
        return None;
    }
    let span = context.span();
    let span = span.span_context();
    (span.is_valid() && span.is_sampled()).then(|| encoded(span))
}

/// The binary form of W3C's `traceparent`, and zeros.
fn encoded(span: &SpanContext) -> CallContext {
    let mut bytes = [0; CallContext::BYTES];
    bytes[0] = VERSION;
    bytes[1..17].copy_from_slice(&span.trace_id().to_bytes());
    bytes[17..25].copy_from_slice(&span.span_id().to_bytes());
    bytes[25] = span.trace_flags().to_u8();
    CallContext(bytes)
}

/// The span that a context names; `None` if it names none. Another process has written the context.
fn decoded(CallContext(bytes): CallContext) -> Option<SpanContext> {
    let [VERSION, rest @ ..] = bytes else { return None };
    let (trace, rest) = rest.split_first_chunk()?;
    let (span, rest) = rest.split_first_chunk()?;
    let flags = TraceFlags::new(*rest.first()?);
    let (trace, span) = (TraceId::from_bytes(*trace), SpanId::from_bytes(*span));
    let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

/// The span of a call that this process runs; `None` if the caller has sent no context.
pub(crate) struct CallSpan(Option<Context>);

impl CallSpan {
    /// The call begins.
    pub(crate) fn begin(context: Option<CallContext>, name: impl FnOnce() -> Cow<'static, str>) -> Self {
        let Some(parent) = context.and_then(decoded) else { return Self(None) };
        let start = || {
            let tracer = global::tracer(TRACER);
            let parent = Context::new().with_remote_span_context(parent);
            let span = tracer.span_builder(name()).with_kind(SpanKind::Consumer);
            Ok(Context::current_with_span(span.start_with_context(&tracer, &parent)))
        };
        // Samplers and processors are code of the program.
        Self(guarded(start).ok())
    }

    /// Runs a part of the call.
    pub(crate) fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        let _attached = self.0.clone().map(Context::attach);
        run()
    }

    /// The call is over.
    pub(crate) fn end(self, failure: Option<&Failure>) {
        let Some(context) = self.0 else { return };
        // Exporters are code of the program.
        let _ = guarded(|| {
            let span = context.span();
            if let Some(failure) = failure {
                span.set_status(Status::error(failure.to_string()));
            }
            span.end();
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(trace: u128, span: u64, flags: TraceFlags) -> SpanContext {
        SpanContext::new(TraceId::from(trace), SpanId::from(span), flags, true, TraceState::NONE)
    }

    #[test]
    fn a_context_arrives_as_it_was_sent() {
        let sent = span(1 << 100 | 7, 1 << 40 | 9, TraceFlags::SAMPLED);
        let context = Context::new().with_remote_span_context(sent.clone());
        assert_eq!(context_of(&context).and_then(decoded), Some(sent));
        assert_eq!(context_of(&context.with_telemetry_suppressed()), None);
    }

    #[test]
    fn only_sampled_spans_are_sent() {
        let sampled = TraceFlags::SAMPLED;
        for not_sent in [span(1, 1, TraceFlags::NOT_SAMPLED), span(0, 1, sampled), span(1, 0, sampled)] {
            assert_eq!(context_of(&Context::new().with_remote_span_context(not_sent)), None);
        }
        assert_eq!(context_of(&Context::new()), None);
    }

    #[test]
    fn a_context_that_names_no_span_makes_none() {
        let CallContext(good) = encoded(&span(1, 1, TraceFlags::SAMPLED));
        assert!(decoded(CallContext(good)).is_some());
        let without = |range: std::ops::Range<usize>, byte: u8| {
            let mut bytes = good;
            bytes[range].fill(byte);
            CallContext(bytes)
        };
        // No trace, no span, nothing, and a version that is not known.
        for hostile in [without(1..17, 0), without(17..25, 0), without(0..32, 0), without(0..1, 0xff)] {
            assert_eq!(decoded(hostile), None, "{hostile:?}");
            assert!(CallSpan::begin(Some(hostile), || unreachable!("there is no span")).0.is_none());
        }
    }
}
