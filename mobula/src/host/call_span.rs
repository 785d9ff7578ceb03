//! Runs a call in its span, if its caller has sent the context of one. Without the feature `opentelemetry`, no call has
//! a span.

use std::borrow::Cow;

use mobula_runtime::{CallContext, Failure};

use super::user_code::named;
#[cfg(feature = "opentelemetry")]
use crate::opentelemetry::CallSpan;

/// From now on, the calls that this process makes carry the contexts in which they are made.
pub(crate) fn send_contexts() {
    #[cfg(feature = "opentelemetry")]
    mobula_runtime::set_context_source(crate::opentelemetry::current);
}

/// Runs a call. Its name is that of its span and of its failure.
pub(super) fn in_span<T>(
    context: Option<CallContext>,
    name: impl Fn() -> Cow<'static, str>,
    run: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let span = CallSpan::begin(context, &name);
    let outcome = span.within(run).map_err(|failure| named(&name(), failure));
    span.end(outcome.as_ref().err());
    outcome
}

/// Runs a call that is a future. Its span is active whenever it is polled.
#[cfg(feature = "tokio")]
pub(super) async fn in_span_async<T>(
    context: Option<CallContext>,
    name: impl Fn() -> Cow<'static, str>,
    run: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let span = CallSpan::begin(context, &name);
    let mut run = std::pin::pin!(run);
    let outcome = std::future::poll_fn(|context| span.within(|| run.as_mut().poll(context))).await;
    let outcome = outcome.map_err(|failure| named(&name(), failure));
    span.end(outcome.as_ref().err());
    outcome
}

#[cfg(not(feature = "opentelemetry"))]
struct CallSpan;

#[cfg(not(feature = "opentelemetry"))]
impl CallSpan {
    fn begin(_: Option<CallContext>, _: impl FnOnce() -> Cow<'static, str>) -> Self {
        Self
    }

    fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        run()
    }

    fn end(self, _: Option<&Failure>) {}
}
