//! Where a driver can be killed around an append: which facts pass which of the points in `stdx::points`.

use crate::facts::Fact;
use domain::Event;

/// The process is about to write these.
pub(crate) fn before_append<'a>(facts: impl Iterator<Item = &'a Fact>) {
    facts.filter_map(|fact| before(&fact.event)).for_each(stdx::points::reach);
}

/// These are durable.
pub(crate) fn after_append<'a>(facts: impl Iterator<Item = &'a Fact>) {
    facts.filter_map(|fact| after(&fact.event)).for_each(stdx::points::reach);
}

const fn before(event: &Event) -> Option<&'static str> {
    match event {
        Event::Replied(_) => Some("reply.before_append"),
        Event::Finished(_) => Some("finished.before_append"),
        _ => None,
    }
}

const fn after(event: &Event) -> Option<&'static str> {
    match event {
        Event::Replied(_) => Some("reply.after_append"),
        Event::Began(_) => Some("began.after_append"),
        Event::SandboxOpened(_) => Some("sandbox.recorded"),
        Event::Returned(_) => Some("returned.after_append"),
        Event::Checkpointed(_) => Some("checkpoint.recorded"),
        Event::Parked(_) => Some("parked.after_append"),
        Event::Finished(_) => Some("finished.after_append"),
        Event::Resumed(_) => Some("resumed.after_append"),
        _ => None,
    }
}
