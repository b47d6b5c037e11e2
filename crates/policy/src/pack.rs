//! A pack: policies that were parsed, checked against the schema and stand ready.

use crate::approval::Asked;
use crate::question::Questions;
use crate::split::statements;
use crate::{Decision, Permit, Request};
use cedar_policy::{Authorizer, Decision as Cedar, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use domain::{Digest, Judgement, Obligation, Verdict};
use std::collections::HashMap;
use std::time::Duration;

const SCHEMA: &str = include_str!("../packs/schema.cedarschema");
const DEV: &str = include_str!("../packs/dev.cedar");

/// A file of policies.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name, relative to the project.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// Why a pack can't serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not Cedar, or not about what the schema knows.
    #[error("{file}:{line}: {detail}")]
    Policy {
        /// The file.
        file: String,
        /// The line the policy starts on.
        line: usize,
        /// What Cedar says.
        detail: String,
    },
    /// Two policies of one id.
    #[error("{file}:{line}: the id `{id}` is taken by {other}; hint: give each policy an @id of its own")]
    Duplicate {
        /// The file.
        file: String,
        /// The line the second starts on.
        line: usize,
        /// The id.
        id: String,
        /// Where the first stands.
        other: String,
    },
    /// The schema built into this program is broken.
    #[error("built-in policy schema: {detail}")]
    Schema {
        /// What Cedar says.
        detail: String,
    },
}

impl Error {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Policy { .. } => "policy_invalid",
            Self::Duplicate { .. } => "policy_duplicate",
            Self::Schema { .. } => "policy_schema",
        }
    }
}

/// A pack of policies that stands ready.
#[derive(Debug)]
pub struct Pack {
    name: String,
    policies: PolicySet,
    /// Where each policy stands: `file:line id`.
    places: HashMap<PolicyId, String>,
    /// What those ask for that want an approval.
    asked: HashMap<PolicyId, Asked>,
    authorizer: Authorizer,
    questions: Questions,
}

impl Pack {
    /// The built-in pack `dev`: declared reads and writes are allowed, external and destructive calls wait for an approval.
    pub fn dev() -> Result<Self, Error> {
        Self::new("dev", &[Source { file: "builtin/dev.cedar".into(), text: DEV.into() }])
    }

    /// A pack made of `sources`. Every policy must be valid against the schema, in Cedar's strict mode.
    pub fn new(name: &str, sources: &[Source]) -> Result<Self, Error> {
        let (schema, _) =
            Schema::from_cedarschema_str(SCHEMA).map_err(|error| Error::Schema { detail: error.to_string() })?;
        let mut policies = PolicySet::new();
        let mut places = HashMap::new();
        let mut asked = HashMap::new();
        let mut digest = Vec::new();
        for source in sources {
            digest.extend_from_slice(Digest::of(source.text.as_bytes()).0.as_slice());
            for (index, statement) in statements(&source.text).iter().enumerate() {
                let wrong = |detail: String| Error::Policy { file: source.file.clone(), line: statement.line, detail };
                let policy = Policy::parse(None, statement.text).map_err(|error| wrong(chain(&error)))?;
                let id =
                    policy.annotation("id").map_or_else(|| format!("{}#{}", source.file, index + 1), str::to_owned);
                let place = format!("{}:{} {id}", source.file, statement.line);
                let id = PolicyId::new(&id);
                if let Some(other) = places.get(&id) {
                    let (file, line) = (source.file.clone(), statement.line);
                    return Err(Error::Duplicate { file, line, id: id.to_string(), other: String::clone(other) });
                }
                let mut alone = PolicySet::new();
                let policy = policy.new_id(id.clone());
                alone.add(policy.clone()).map_err(|error| wrong(error.to_string()))?;
                let checked = Validator::new(schema.clone()).validate(&alone, ValidationMode::Strict);
                if let Some(error) = checked.validation_errors().next() {
                    return Err(wrong(error.to_string()));
                }
                asked.extend(Asked::of_policy(&policy).map_err(wrong)?.map(|asks| (id.clone(), asks)));
                policies.add(policy).map_err(|error| wrong(error.to_string()))?;
                places.insert(id, place);
            }
        }
        let name = format!("{name}@{}", &Digest::of(&digest).to_string()[..12]);
        Ok(Self { name, policies, places, asked, authorizer: Authorizer::new(), questions: Questions::new()? })
    }

    /// Name and short digest.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many policies it holds.
    pub fn policies(&self) -> usize {
        self.places.len()
    }

    /// Judges a call. `now` is a monotonic time; a permit expires [`crate::PERMIT_MS_MAX`] after it. Fails closed: what can't be
    /// judged, and what an erring policy may have forbidden, is denied.
    pub fn decide(&self, request: &Request<'_>, now: Duration) -> Decision {
        let Some((question, parties)) = self.questions.ask(request) else {
            return Decision::Deny(self.judgement(Verdict::Deny, vec![], "request_invalid"));
        };
        let answer = self.authorizer.is_authorized(&question, &self.policies, &parties.entities);
        let matched: Vec<_> = answer.diagnostics().reason().collect();
        let deny = |reason| Decision::Deny(self.judgement(Verdict::Deny, self.placed(&matched), reason));
        if answer.diagnostics().errors().next().is_some() {
            // Cedar skips a policy that errs; were it a `forbid`, skipping it would open the door.
            return deny("policy_error");
        }
        match answer.decision() {
            Cedar::Deny if matched.is_empty() => deny("default_deny"),
            Cedar::Deny => deny("forbidden"),
            Cedar::Allow => self.permitted(request, &matched, now),
        }
    }

    /// Judges a call that the policies `matched` permit: what any of them or the tool's contract asks for must be met.
    fn permitted(&self, request: &Request<'_>, matched: &[&PolicyId], now: Duration) -> Decision {
        let asking: Vec<_> = matched.iter().copied().filter(|id| self.asked.contains_key(*id)).collect();
        let by_policies = asking.iter().filter_map(|id| self.asked.get(*id)).copied();
        let asked = by_policies.chain(Asked::of_contract(request.contract)).reduce(Asked::and);
        let reason = match asked {
            Some(Asked { quorum, seconds, hold }) if request.approvals < quorum => {
                let expires_ms = request.now_ms.saturating_add(seconds.saturating_mul(1_000));
                let obligation = Obligation { quorum, expires_ms, binding: request.binding, hold };
                let judgement = self.judgement(Verdict::Hold, self.placed(&asking), "approval_needed");
                return Decision::Hold(judgement, obligation);
            }
            Some(_) => "approved",
            None => "allowed",
        };
        let judgement = self.judgement(Verdict::Allow, self.placed(matched), reason);
        Decision::Allow(judgement, Permit::new(request.call.clone(), request.epoch, now))
    }

    fn judgement(&self, verdict: Verdict, policies: Vec<String>, reason: &str) -> Judgement {
        Judgement { verdict, policies, reason: reason.into(), pack: self.name.clone() }
    }

    /// Where policies stand, in order.
    fn placed(&self, ids: &[&PolicyId]) -> Vec<String> {
        let mut places: Vec<String> = ids.iter().filter_map(|id| self.places.get(*id)).cloned().collect();
        places.sort();
        places
    }
}

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::contract::Approval;
    use domain::{Call, Contract, Effect, Hold, Id};

    fn pack(text: &str) -> Result<Pack, Error> {
        Pack::new("test", &[Source { file: "policies/a.cedar".into(), text: text.into() }])
    }

    fn decide(pack: &Pack, effect: Effect, approval: Approval) -> Decision {
        decide_with(pack, effect, approval, 0)
    }

    fn decide_with(pack: &Pack, effect: Effect, approval: Approval, approvals: u8) -> Decision {
        let call = Call {
            id: Id::from_bytes([1; 16]),
            run: Id::from_bytes([2; 16]),
            session: Id::from_bytes([3; 16]),
            tenant: "default".into(),
            tool: "pay".into(),
            arguments: "{}".into(),
            custom: false,
        };
        let contract = Contract { approval, ..Contract::of(effect) };
        let principal = Id::from_name("default", "local");
        let request = Request {
            call: &call,
            agent: "maya",
            principal,
            contract: &contract,
            turn: 1,
            tool_calls: 0,
            epoch: 7,
            approvals,
            binding: Digest::of(b"bound"),
            now_ms: 1_000_000,
        };
        pack.decide(&request, Duration::from_secs(5))
    }

    fn check(text: &str, effect: Effect, expected: &str) {
        let decision = decide(&pack(text).unwrap(), effect, Approval::Policy);
        let Judgement { verdict, policies, reason, .. } = decision.judgement();
        assert_eq!(format!("{verdict:?} {reason} {}", policies.join(", ")), expected, "{text}");
    }

    const OPEN: &str = "permit (principal, action, resource);";

    #[test]
    fn nothing_is_allowed_that_no_policy_permits() {
        check("", Effect::Read, "Deny default_deny ");
        check(OPEN, Effect::Destructive, "Allow allowed policies/a.cedar:1 policies/a.cedar#1");
        check(
            &format!("{OPEN}\n\n@id(\"no.pay\")\nforbid (principal, action, resource == Tool::\"pay\");"),
            Effect::Read,
            "Deny forbidden policies/a.cedar:3 no.pay",
        );
        check(
            "@id(\"x\") permit (principal == Agent::\"maya\", action == Action::\"read\", resource) when { context.turn < 2 };",
            Effect::Read,
            "Allow allowed policies/a.cedar:1 x",
        );
    }

    #[test]
    fn a_policy_that_errs_denies() {
        let overflow = format!(
            "{OPEN} @id(\"boom\") forbid (principal, action, resource) when {{ context.turn + 9223372036854775807 > 0 }};"
        );
        check(&overflow, Effect::Read, "Deny policy_error policies/a.cedar:1 policies/a.cedar#1");
    }

    #[test]
    fn the_dev_pack_asks_before_effects_go_outside() {
        let dev = Pack::dev().unwrap();
        for (effect, expected) in [
            (Effect::Read, "Allow allowed builtin/dev.cedar:4 dev.read"),
            (Effect::Write, "Allow allowed builtin/dev.cedar:7 dev.write"),
            (Effect::External, "Hold approval_needed builtin/dev.cedar:10 dev.outside"),
            (Effect::Destructive, "Hold approval_needed builtin/dev.cedar:10 dev.outside"),
        ] {
            let decision = decide(&dev, effect, Approval::Policy);
            let Judgement { verdict, policies, reason, .. } = decision.judgement();
            assert_eq!(format!("{verdict:?} {reason} {}", policies.join(", ")), expected);
        }
        assert!(dev.name().starts_with("dev@"));
    }

    /// What an open pack with further policies says of a write with so many approvals.
    fn check_held(further: &str, approval: Approval, approvals: u8, expected: &str) {
        let pack = pack(&format!("@id(\"open\") {OPEN}\n{further}")).unwrap();
        let decision = decide_with(&pack, Effect::Write, approval, approvals);
        let Judgement { verdict, policies, reason, .. } = decision.judgement();
        let mut got = format!("{verdict:?} {reason} {}", policies.join(", "));
        if let Decision::Hold(_, Obligation { quorum, expires_ms, binding, hold }) = &decision {
            assert_eq!(*binding, Digest::of(b"bound"));
            got += &format!("; {quorum} within {} s", (expires_ms - 1_000_000) / 1_000);
            got += if *hold == Hold::Batch { ", all wait" } else { "" };
        }
        assert_eq!(got, expected, "{further} {approval:?} {approvals}");
    }

    const ONE: &str = "@id(\"one\") @approval(\"always\") @expires(\"2h\") permit (principal, action, resource);";
    const TWO: &str = "@id(\"two\") @approval(\"quorum 2\") @hold(\"batch\") permit (principal, action, resource);";

    #[test]
    fn what_needs_approval_is_held_until_enough_have_given_it() {
        let at = |line: usize, id: &str| format!("policies/a.cedar:{line} {id}");
        let (open, one, two) = (at(1, "open"), at(2, "one"), at(2, "two"));
        let both = format!("{ONE}\n{TWO}");
        let rows = [
            ("", Approval::Policy, 0, format!("Allow allowed {open}")),
            ("", Approval::Never, 0, format!("Allow allowed {open}")),
            // The contract asks, and no policy does.
            ("", Approval::Always, 0, "Hold approval_needed ; 1 within 604800 s".into()),
            ("", Approval::Always, 1, format!("Allow approved {open}")),
            ("", Approval::Quorum(3), 2, "Hold approval_needed ; 3 within 604800 s".into()),
            ("", Approval::Quorum(3), 3, format!("Allow approved {open}")),
            // A policy asks; what the contract says can only add to it.
            (ONE, Approval::Never, 0, format!("Hold approval_needed {one}; 1 within 7200 s")),
            (ONE, Approval::Policy, 1, format!("Allow approved {open}, {one}")),
            (ONE, Approval::Quorum(3), 1, format!("Hold approval_needed {one}; 3 within 7200 s")),
            (TWO, Approval::Always, 1, format!("Hold approval_needed {two}; 2 within 604800 s, all wait")),
            (TWO, Approval::Always, 2, format!("Allow approved {open}, {two}")),
            // Several ask: the larger quorum, the shorter time, the wider hold.
            (
                &both,
                Approval::Policy,
                1,
                format!("Hold approval_needed {one}, {}; 2 within 7200 s, all wait", at(3, "two")),
            ),
        ];
        for (further, approval, approvals, expected) in rows {
            check_held(further, approval, approvals, &expected);
        }
    }

    #[test]
    fn no_approval_lifts_what_is_forbidden_or_not_permitted() {
        let forbid = "@id(\"no\") forbid (principal, action, resource);";
        check_held(forbid, Approval::Always, 9, "Deny forbidden policies/a.cedar:2 no");
        let elsewhere = pack("@approval(\"always\") permit (principal == Agent::\"bob\", action, resource);").unwrap();
        let decision = decide_with(&elsewhere, Effect::Read, Approval::Always, 9);
        assert_eq!(decision.judgement().reason, "default_deny");
    }

    #[test]
    fn a_permit_is_bound_to_call_lease_and_time() {
        let Decision::Allow(_, permit) = decide(&pack(OPEN).unwrap(), Effect::Read, Approval::Policy) else {
            panic!("denied");
        };
        assert_eq!((permit.epoch(), permit.call().tool.as_str()), (7, "pay"));
        assert_eq!(permit.digest(), permit.call().digest());
        assert!(permit.is_good_at(Duration::from_millis(6_000)));
        assert!(!permit.is_good_at(Duration::from_millis(6_001)));
    }

    #[test]
    fn wrong_policies_are_refused_with_file_and_line() {
        for (text, line, part) in [
            ("\npermit (principal action, resource);", 2, "unexpected token"),
            ("// a\npermit (principal, action == Action::\"reed\", resource);", 2, "reed"),
            ("permit (principal, action, resource) when { context.tern < 2 };", 1, "tern"),
            ("permit (principal, action, resource)", 1, "unexpected end of input"),
            ("\n@approval(\"maybe\")\npermit (principal, action, resource);", 2, "expected \"always\" or"),
            ("@approval(\"always\") @expires(\"1y\") permit (principal, action, resource);", 1, "such as \"2h\""),
            ("@aproval(\"always\") permit (principal, action, resource);", 1, "unknown annotation"),
            ("@approval(\"always\") forbid (principal, action, resource);", 1, "put it on a `permit`"),
        ] {
            let error = pack(text).unwrap_err();
            let Error::Policy { line: at, detail, .. } = &error else { panic!("{error}") };
            assert_eq!(*at, line, "{error}");
            assert!(detail.contains(part), "{detail}");
        }
        let twice =
            "@id(\"x\") permit (principal, action, resource);\n@id(\"x\") forbid (principal, action, resource);";
        assert_eq!(pack(twice).unwrap_err().code(), "policy_duplicate");
    }
}
