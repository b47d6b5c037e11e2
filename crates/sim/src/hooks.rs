//! Those who are told what happens to runs: they keep what came, and whether it was signed as it must be.

use crate::power::Power;
use crate::reached::{Kind, Reached};
use crate::trace::Trace;
use domain::{Digest, Id, id};
use net::Request;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What signs what they are told.
pub(crate) const SECRET: &str = "a secret of the simulation";
/// The kinds of records that they want to hear of.
pub(crate) const EVENTS: &[&str] = &["submitted", "parked", "in_doubt", "resumed", "finished"];

/// Where something that was told stands in the log.
pub(crate) type Place = (Id<id::Session>, u64);

/// Those who are told. Cloning is cheap; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Hooks {
    power: Power,
    trace: Trace,
    reached: Reached,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What was told: the id of the delivery and the kind.
    told: BTreeMap<Place, (String, String)>,
    wrong: Vec<String>,
}

impl Hooks {
    pub(crate) fn new(power: Power, trace: Trace, reached: Reached) -> Self {
        Self { power, trace, reached, state: Arc::default() }
    }

    /// They are told something.
    pub(crate) fn told(&self, request: &Request) {
        if self.power.is_off() {
            return;
        }
        match read(request) {
            Ok((place, delivery)) => {
                self.trace.say(format_args!("told {} of {} {}", delivery.1, place.0, place.1));
                let before = self.state.lock().told.insert(place, delivery.clone());
                self.reached.note(if before.is_some() { Kind::HookRepeated } else { Kind::HookTold });
                if before.is_some_and(|before| before != delivery) {
                    self.wrong(format!("record {} of {} was told of under another id or kind", place.1, place.0));
                }
            }
            Err(wrong) => self.wrong(wrong),
        }
    }

    fn wrong(&self, what: String) {
        self.trace.say(format_args!("WRONG {what}"));
        self.state.lock().wrong.push(what);
    }

    /// Everything that was told, by its place, with its kind.
    pub(crate) fn all(&self) -> BTreeMap<Place, String> {
        self.state.lock().told.iter().map(|(place, (_, kind))| (*place, kind.clone())).collect()
    }

    /// What was told that must never be.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.state.lock().wrong.clone()
    }
}

/// What a request tells, when it is signed.
fn read(request: &Request) -> Result<(Place, (String, String)), String> {
    let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let signature = header("topside-signature");
    let (at, code) = signature.split_once(",v1=").ok_or("what is told is not signed")?;
    let at = at.strip_prefix("t=").ok_or("a signature has no time")?;
    if code != signed(SECRET.as_bytes(), &[at.as_bytes(), b".", &request.body].concat()) {
        return Err("what is told is signed wrongly".into());
    }
    let body: Value =
        serde_json::from_slice(&request.body).map_err(|error| format!("what is told is no JSON: {error}"))?;
    let session = body["session_id"].as_str().and_then(|text| text.parse().ok()).ok_or("it names no session")?;
    let position = body["position"].as_u64().ok_or("it names no position")?;
    let (id, kind) = (header("topside-delivery"), header("topside-event"));
    if body["id"] != id || body["type"] != kind {
        return Err(format!("the headers say {id} {kind}, and the body {} {}", body["id"], body["type"]));
    }
    Ok(((session, position), (id.to_owned(), kind.to_owned())))
}

/// HMAC-SHA-256 as RFC 2104 has it, apart from the library that the engine signs with.
fn signed(key: &[u8], message: &[u8]) -> String {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Digest::of_parts(&[&block.map(|byte| byte ^ 0x36), message]);
    Digest::of_parts(&[&block.map(|byte| byte ^ 0x5c), &inner.0]).0.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;
    use net::{HeaderName, HeaderValue, Method, Origin, Url};

    #[test]
    fn what_is_not_signed_with_the_secret_is_wrong() {
        let session: Id<id::Session> = Id::from_bytes([7; 16]);
        let check = |secret: &str, kind: &str, position: u64, wrong: &str| {
            let body = format!(r#"{{"id":"dlv_1","type":"finished","session_id":"{session}","position":{position}}}"#);
            let signature = format!("t=5,v1={}", signed(secret.as_bytes(), format!("5.{body}").as_bytes()));
            let url = Url::parse("http://hook.test/").unwrap();
            let mut request = Request::new(Method::POST, url, Origin::Operator);
            for (name, value) in
                [("topside-signature", signature.as_str()), ("topside-delivery", "dlv_1"), ("topside-event", kind)]
            {
                request.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
            request.body = body.into();
            let hooks = Hooks::new(Power::default(), Trace::new(Time::default()), Reached::default());
            hooks.told(&request);
            assert!(hooks.wrongs().join("; ").contains(wrong), "{:?}", hooks.wrongs());
            assert_eq!(hooks.all().len(), usize::from(wrong.is_empty()));
        };
        check(SECRET, "finished", 3, "");
        check("another secret", "finished", 3, "signed wrongly");
        check(SECRET, "parked", 3, "the headers say");
    }

    #[test]
    fn signatures_are_those_of_the_standard() {
        // RFC 4231, test case 2.
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signed(b"Jefe", b"what do ya want for nothing?"), expected);
    }
}
