//! A run beside its record, two runs beside each other, and what others were told of one.

use crate::answer;
use crate::app::{App, Asked, Told};
use crate::handlers::run_id;
use crate::problem::No;
use api::{Delivery, DeliveryList, DeliveryStatus, Diff, Difference, ReplayDifference};
use domain::{Id, id};
use engine::{DeliveryView, Replay};

/// `GET /runs/{run_id}/replay`.
pub(crate) async fn replay(app: &App, asked: &Asked) -> Result<Told, No> {
    let run = run_id(asked.route.parameter())?;
    let replay = app.engine.replay(&asked.caller.tenant, run).await?;
    Ok(Told::about(answer::json(200, &shown_replay(run, replay))?, run))
}

fn shown_replay(run_id: Id<id::Run>, replay: Replay) -> api::Replay {
    match replay {
        Replay::Same { records, .. } => api::Replay { run_id, same: true, records, difference: None },
        Replay::Differs { position, expected, found } => {
            let difference = Some(ReplayDifference { position, expected, found });
            api::Replay { run_id, same: false, records: position, difference }
        }
    }
}

/// `GET /runs/{run_id}/diff/{other_run_id}`.
pub(crate) async fn diff(app: &App, asked: &Asked) -> Result<Told, No> {
    let (run, other) = (run_id(asked.route.parameter())?, run_id(asked.route.second())?);
    let shown = |difference: engine::Difference| {
        let engine::Difference { turn, what, a, b } = difference;
        Difference { turn, what: what.name().to_owned(), a, b }
    };
    let differences = app.engine.diff(&asked.caller.tenant, run, other).await?.into_iter().map(shown).collect();
    Ok(Told::about(answer::json(200, &Diff { run_id: run, other_run_id: other, differences })?, run))
}

/// `GET /runs/{run_id}/deliveries`.
pub(crate) async fn deliveries(app: &App, asked: &Asked) -> Result<Told, No> {
    let run = run_id(asked.route.parameter())?;
    let deliveries = app.engine.deliveries(&asked.caller.tenant, run).await?;
    let deliveries = deliveries.into_iter().map(shown_delivery).collect();
    Ok(Told::about(answer::json(200, &DeliveryList { deliveries })?, run))
}

fn shown_delivery(view: DeliveryView) -> Delivery {
    let status = match view.status {
        engine::DeliveryStatus::Pending => DeliveryStatus::Pending,
        engine::DeliveryStatus::Delivered => DeliveryStatus::Delivered,
        engine::DeliveryStatus::Failed => DeliveryStatus::Failed,
    };
    let DeliveryView { delivery_id, url, event, position, attempts, answered, code, next_ms, .. } = view;
    Delivery { delivery_id, url, event, position, status, attempts, answered, code, next_ms }
}
