//! Questions of an observer to the head. An observer is a client that is not a process of the session.

use std::time::{Duration, Instant};

use mobula_client::{Client, OwnerId};

use crate::mail::link::Link;
use crate::wire::{self, FromHead, ToHead};

/// The longest wait before the link is checked again.
const LOOK: Duration = Duration::from_millis(50);

/// Sends records to a head, and returns the value that `take` makes from its answers; `None` if no answer comes in
/// time, or the head is gone. The head may need the answer of another process (`of`). Opens a channel and closes it
/// again.
pub(crate) fn ask<T>(
    client: &Client,
    head: OwnerId,
    of: Option<OwnerId>,
    questions: &[ToHead<'_>],
    patience: Duration,
    take: impl Fn(FromHead<'_>) -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + patience;
    let link = Link::new(client.connect_to(head).ok()?, false);
    for question in questions {
        link.send(question, Vec::new()).ok()?;
    }
    let mut answer = None;
    while answer.is_none() {
        let is_over = link.is_closed() || Instant::now() >= deadline;
        link.receive(&mut |record: &mut Vec<u8>| {
            if let Ok(record) = wire::read(record)
                && answer.is_none()
            {
                answer = take(record);
            }
        });
        if answer.is_some() || is_over {
            break;
        }
        // A process that waits for nothing reads its mail when an event comes, for example a new channel.
        if let Some(channel) = of.and_then(|process| client.connect_to(process).ok()) {
            Link::new(channel, false).close();
        }
        let left = deadline.saturating_duration_since(Instant::now());
        client.sleep(Some(left.min(LOOK)), || link.has_work());
    }
    link.close();
    answer
}
