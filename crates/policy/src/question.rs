//! What Cedar is asked about a call: who, with what, and the entities that the policies may speak of.

use crate::{Error, Request};
use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request as CedarRequest, RestrictedExpression,
};
use domain::{Effect, Id, id};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// Parties that are kept made. A project has few; more than these are made anew.
const PARTIES_MAX: usize = 1_024;

/// Makes questions. Entities are checked for cycles each time that they are made, which takes longer than the answer, so
/// those of the parties that meet again and again are kept.
#[derive(Debug)]
pub(crate) struct Questions {
    tenant: EntityTypeName,
    principal: EntityTypeName,
    agent: EntityTypeName,
    tool: EntityTypeName,
    actions: BTreeMap<Effect, EntityUid>,
    known: Mutex<HashMap<Names, Arc<Parties>>>,
}

/// By what parties are told apart: tenant, agent, tool, principal, effect.
type Names = (String, String, String, Id<id::Principal>, Effect);

/// Who and what meets in a call.
#[derive(Debug)]
pub(crate) struct Parties {
    principal: EntityUid,
    agent: EntityUid,
    tool: EntityUid,
    pub(crate) entities: Entities,
}

impl Questions {
    pub(crate) fn new() -> Result<Self, Error> {
        let name = |name| EntityTypeName::from_str(name).map_err(|error| Error::Schema { detail: error.to_string() });
        let action = name("Action")?;
        let actions = [Effect::Read, Effect::Write, Effect::External, Effect::Destructive]
            .map(|effect| (effect, EntityUid::from_type_name_and_id(action.clone(), EntityId::new(effect.name()))));
        Ok(Self {
            tenant: name("Tenant")?,
            principal: name("Principal")?,
            agent: name("Agent")?,
            tool: name("Tool")?,
            actions: actions.into(),
            known: Mutex::default(),
        })
    }

    /// The question about a call; `None` when it can't be put, which is to be taken for a no.
    pub(crate) fn ask(&self, request: &Request<'_>) -> Option<(CedarRequest, Arc<Parties>)> {
        let parties = self.parties(request)?;
        let context = Context::from_pairs([
            ("on_behalf_of".into(), RestrictedExpression::new_entity_uid(parties.principal.clone())),
            ("turn".into(), RestrictedExpression::new_long(request.turn.into())),
            ("tool_calls".into(), RestrictedExpression::new_long(request.tool_calls.into())),
        ])
        .ok()?;
        let action = self.actions.get(&request.contract.effect)?.clone();
        let question = CedarRequest::new(parties.agent.clone(), action, parties.tool.clone(), context, None).ok()?;
        Some((question, parties))
    }

    fn parties(&self, request: &Request<'_>) -> Option<Arc<Parties>> {
        let Request { call, agent, principal, contract, .. } = request;
        let names = (call.tenant.clone(), (*agent).to_owned(), call.tool.clone(), *principal, contract.effect);
        if let Some(parties) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&names) {
            return Some(parties.clone());
        }
        let parties = Arc::new(self.meet(request)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= PARTIES_MAX {
            known.clear();
        }
        known.insert(names, parties.clone());
        Some(parties)
    }

    fn meet(&self, request: &Request<'_>) -> Option<Parties> {
        let uid = |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
        let tenant = uid(&self.tenant, &request.call.tenant);
        let principal = uid(&self.principal, &request.principal.to_string());
        let agent = uid(&self.agent, request.agent);
        let tool = uid(&self.tool, &request.call.tool);
        let effect = request.contract.effect.name();
        let parents = || HashSet::from([tenant.clone()]);
        let attributes = HashMap::from([("effect".into(), RestrictedExpression::new_string(effect.into()))]);
        let entities = Entities::from_entities(
            [
                Entity::new_no_attrs(principal.clone(), parents()),
                Entity::new_no_attrs(agent.clone(), parents()),
                Entity::new(tool.clone(), attributes, parents()).ok()?,
            ],
            None,
        )
        .ok()?;
        Some(Parties { principal, agent, tool, entities })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pack, Source};
    use domain::{Call, Contract, Digest, Verdict};
    use std::time::Duration;

    /// Judges a call of a tool by an agent, on behalf of the `person`th principal.
    fn verdict(pack: &Pack, tenant: &str, agent: &str, effect: Effect, person: usize) -> Verdict {
        let call = Call {
            id: Id::from_bytes([1; 16]),
            run: Id::from_bytes([2; 16]),
            session: Id::from_bytes([3; 16]),
            tenant: tenant.into(),
            tool: "look".into(),
            arguments: "{}".into(),
            custom: false,
        };
        let request = Request {
            call: &call,
            agent,
            principal: Id::from_name(tenant, &person.to_string()),
            contract: &Contract::of(effect),
            turn: 1,
            tool_calls: 0,
            epoch: 1,
            approvals: 0,
            binding: Digest::of(b"bound"),
            now_ms: 0,
        };
        pack.decide(&request, Duration::ZERO).judgement().verdict
    }

    #[test]
    fn parties_that_are_kept_are_never_taken_for_others() {
        let first = Id::<id::Principal>::from_name("default", "0");
        let text = format!(
            "permit (principal == Agent::\"maya\", action == Action::\"read\", resource) when {{ \
             resource.effect == \"read\" && resource in Tenant::\"default\" && context.on_behalf_of == Principal::\"{first}\" }};"
        );
        let pack = Pack::new("test", &[Source { file: "a.cedar".into(), text }]).unwrap();
        let rows = [
            ("default", "maya", Effect::Read, 0, Verdict::Allow),
            ("other", "maya", Effect::Read, 0, Verdict::Deny),
            ("default", "otto", Effect::Read, 0, Verdict::Deny),
            ("default", "maya", Effect::Write, 0, Verdict::Deny),
            ("default", "maya", Effect::Read, 1, Verdict::Deny),
        ];
        // Once when they are made, once when they are known, once after too many others came between.
        for others in [0, 0, PARTIES_MAX + 1] {
            for person in 0..others {
                verdict(&pack, "crowd", "maya", Effect::Read, person);
            }
            for (tenant, agent, effect, person, expected) in rows {
                let told = verdict(&pack, tenant, agent, effect, person);
                assert_eq!(told, expected, "{tenant} {agent} {effect:?} {person}");
            }
        }
    }
}
