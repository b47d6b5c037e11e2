//! The network: carries what the engine asks of models and tells others, late, twice, broken or not at all. Who answers at the
//! other end is in `vendor` (a model) and `hooks` (those who are told).

use crate::hooks::Hooks;
use crate::power::Power;
use crate::reached::{Kind, Reached};
use crate::trace::Trace;
use crate::vendor;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use net::{Carried, Carrier, Error, HeaderMap, HeaderValue, Request, StatusCode};
use parking_lot::Mutex;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use stdx::Random;

/// The model's host and that of those who are told.
pub(crate) const MODEL_HOST: &str = "model.test";
pub(crate) const HOOK_HOST: &str = "hook.test";
/// Of so many questions one begins bad weather at the model, which lasts for so many questions at most.
const STORM_OF: u64 = 8;
const STORM_QUESTIONS_MAX: u64 = 14;
/// How long a slow answer takes at most, in milliseconds.
const SLOW_MS_MAX: u64 = 20_000;

/// The network. Cloning is cheap; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    power: Power,
    random: Random,
    trace: Trace,
    reached: Reached,
    hooks: Hooks,
    storm: Mutex<Option<Storm>>,
}

/// Bad weather: every question meets the same for a while, so that breakers open and retries are used up.
#[derive(Clone, Copy, Debug)]
struct Storm {
    kind: Option<Kind>,
    questions: u64,
}

/// What a question to the model can meet.
const WEATHER: [Kind; 9] = [
    Kind::ModelSlow,
    Kind::ModelLimited,
    Kind::ModelFailed,
    Kind::ModelCut,
    Kind::ModelUnread,
    Kind::ModelRefused,
    Kind::ModelSilent,
    Kind::ModelTwice,
    Kind::ModelRefusal,
];

impl Network {
    pub(crate) fn new(power: Power, random: Random, trace: Trace, reached: Reached, hooks: Hooks) -> Self {
        Self(Arc::new(Inner { power, random, trace, reached, hooks, storm: Mutex::default() }))
    }

    /// What this question meets.
    fn weather(&self) -> Option<Kind> {
        let Inner { random, storm, .. } = &*self.0;
        let mut storm = storm.lock();
        if let Some(Storm { kind, questions }) = *storm {
            *storm = (questions > 0).then(|| Storm { kind, questions: questions.saturating_sub(1) });
            return kind;
        }
        if random.below(STORM_OF) > 0 {
            return None;
        }
        let place = usize::try_from(random.below(WEATHER.len() as u64)).unwrap_or(0);
        let kind = WEATHER.get(place).copied();
        // What no retry mends is met once; a run that meets it ends.
        let questions = match kind {
            Some(Kind::ModelRefusal) => 0,
            // Each takes minutes of the world's time.
            Some(Kind::ModelSilent) => random.below(3),
            _ => random.below(STORM_QUESTIONS_MAX),
        };
        *storm = (questions > 0).then_some(Storm { kind, questions });
        kind
    }

    async fn ask(&self, request: &Request, host: String) -> Result<Carried, Error> {
        let Inner { random, reached, .. } = &*self.0;
        let met = self.weather();
        met.into_iter().for_each(|kind| reached.note(kind));
        let broken = || Error::Broken { host: host.clone(), message: "the connection was reset".into() };
        match met {
            Some(Kind::ModelRefused) => {
                return Err(Error::Connect { host, message: "connection refused".into() });
            }
            Some(Kind::ModelLimited) => {
                let wait = HeaderValue::from(random.below(40));
                let mut limited = whole(StatusCode::TOO_MANY_REQUESTS, "application/json", vendor::error("slow down"));
                limited.headers.insert("retry-after", wait);
                return Ok(limited);
            }
            Some(Kind::ModelFailed) => {
                let failed =
                    [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];
                let place = usize::try_from(random.below(failed.len() as u64)).unwrap_or(0);
                return Ok(whole(failed[place], "text/plain", "it burns".to_owned()));
            }
            Some(Kind::ModelRefusal) => {
                return Ok(whole(StatusCode::BAD_REQUEST, "application/json", vendor::error("no such thing")));
            }
            Some(Kind::ModelUnread) => return Ok(whole(StatusCode::OK, "application/json", "{]".to_owned())),
            Some(Kind::ModelSilent) => pending().await,
            Some(Kind::ModelSlow) => tokio::time::sleep(Duration::from_millis(random.below(SLOW_MS_MAX))).await,
            _ => {}
        }
        let said = vendor::reply(&request.body).ok_or_else(broken)?;
        let mut pieces = said.pieces;
        if met == Some(Kind::ModelTwice) {
            pieces.extend(pieces.clone());
        }
        let mut body: Vec<io::Result<Bytes>> = Vec::new();
        if met == Some(Kind::ModelCut) {
            let kept = usize::try_from(random.below(pieces.len() as u64)).unwrap_or(0);
            pieces.truncate(kept);
        }
        body.extend(pieces.into_iter().map(|piece| Ok(Bytes::from(piece))));
        if met == Some(Kind::ModelCut) {
            body.push(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
        }
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(said.media));
        Ok(Carried { status: StatusCode::OK, headers, body: futures::stream::iter(body).boxed() })
    }

    /// Tells others: it comes to them late or never, and their answer may be lost on its way back.
    async fn tell(&self, request: &Request, host: String) -> Result<Carried, Error> {
        let Inner { random, reached, hooks, .. } = &*self.0;
        let lost = |message: &str| Error::Broken { host: host.clone(), message: message.into() };
        match random.below(12) {
            0 => {
                reached.note(Kind::HookRefused);
                return Err(Error::Connect { host, message: "connection refused".into() });
            }
            1 => {
                reached.note(Kind::HookRefused);
                return Ok(whole(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "not now".to_owned()));
            }
            2 => tokio::time::sleep(Duration::from_millis(random.below(SLOW_MS_MAX))).await,
            _ => {}
        }
        hooks.told(request);
        if random.below(6) == 0 {
            reached.note(Kind::HookLost);
            return Err(lost("the connection was reset"));
        }
        Ok(whole(StatusCode::OK, "text/plain", "thanks".to_owned()))
    }
}

#[async_trait]
impl Carrier for Network {
    async fn carry(&self, request: Request) -> Result<Carried, Error> {
        let Inner { power, trace, .. } = &*self.0;
        let host = request.url.host_str().unwrap_or_default().to_owned();
        crate::objects::point(power, "network: sends").await;
        trace.say(format_args!("sends {} bytes to {host}", request.body.len()));
        let carried = match host.as_str() {
            MODEL_HOST => self.ask(&request, host).await,
            HOOK_HOST => self.tell(&request, host).await,
            _ => Err(Error::Resolve { host, message: "there is no such host".into() }),
        };
        crate::objects::point(power, "network: has an answer").await;
        trace.say(format_args!("answer: {:?}", carried.as_ref().map(|carried| carried.status).map_err(Error::code)));
        carried
    }
}

fn whole(status: StatusCode, media: &'static str, text: String) -> Carried {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(media));
    Carried { status, headers, body: futures::stream::iter([Ok(Bytes::from(text))]).boxed() }
}
