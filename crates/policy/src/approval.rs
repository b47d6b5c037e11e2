//! What a policy asks for before a call: the annotations `@approval`, `@hold` and `@expires` of a `permit`, and what they come to
//! together with the tool's contract. Who may vote and which votes count is `machine`'s.

use cedar_policy::{Effect, Policy};
use domain::contract::Approval;
use domain::{Contract, Hold};

/// An approval may be given for so long unless a policy says otherwise: 7 days.
pub const APPROVAL_SECONDS_DEFAULT: u64 = 7 * 86_400;
/// The longest time that a policy may give: 90 days.
pub const APPROVAL_SECONDS_MAX: u64 = 90 * 86_400;
/// The most approvals that a policy or a contract may ask for.
pub const QUORUM_MAX: u8 = 16;

/// The annotations that mean something here. Others are refused: one that is misspelt would open a door.
const ANNOTATIONS: [&str; 5] = ["id", "description", "approval", "hold", "expires"];

/// What is asked for before a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) quorum: u8,
    pub(crate) seconds: u64,
    pub(crate) hold: Hold,
}

impl Asked {
    const fn of_quorum(quorum: u8) -> Self {
        Self { quorum, seconds: APPROVAL_SECONDS_DEFAULT, hold: Hold::Call }
    }

    /// What the annotations of `policy` ask for, if they do; `Err` says what is wrong with them.
    pub(crate) fn of_policy(policy: &Policy) -> Result<Option<Self>, String> {
        if let Some((name, _)) = policy.annotations().find(|(name, _)| !ANNOTATIONS.contains(name)) {
            return Err(format!("unknown annotation `@{name}`; hint: known are @{}", ANNOTATIONS.join(", @")));
        }
        let Some(approval) = policy.annotation("approval") else {
            return match ["hold", "expires"].into_iter().find(|name| policy.annotation(name).is_some()) {
                Some(name) => Err(format!("`@{name}` without `@approval`; hint: say @approval(\"always\") too")),
                None => Ok(None),
            };
        };
        if policy.effect() == Effect::Forbid {
            return Err("`@approval` on a `forbid`, which nobody can lift; hint: put it on a `permit`".into());
        }
        Ok(Some(Self {
            quorum: quorum(approval)?,
            seconds: policy.annotation("expires").map_or(Ok(APPROVAL_SECONDS_DEFAULT), seconds)?,
            hold: policy.annotation("hold").map_or(Ok(Hold::Call), hold)?,
        }))
    }

    /// What a contract asks for.
    pub(crate) fn of_contract(contract: &Contract) -> Option<Self> {
        match contract.approval {
            Approval::Always => Some(Self::of_quorum(1)),
            // A quorum of nobody is no quorum.
            Approval::Quorum(quorum) => Some(Self::of_quorum(quorum.max(1))),
            Approval::Policy | Approval::Never => None,
        }
    }

    /// What meets both: the larger quorum, the shorter time, the wider hold.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            quorum: self.quorum.max(other.quorum),
            seconds: self.seconds.min(other.seconds),
            hold: if self.hold == Hold::Batch { self.hold } else { other.hold },
        }
    }
}

fn quorum(text: &str) -> Result<u8, String> {
    let number = match text {
        "always" => return Ok(1),
        _ => text.strip_prefix("quorum ").and_then(|number| number.parse().ok()),
    };
    number.filter(|quorum| (1..=QUORUM_MAX).contains(quorum)).ok_or_else(|| {
        format!("@approval(\"{text}\"); expected \"always\" or \"quorum N\" with N from 1 to {QUORUM_MAX}")
    })
}

fn hold(text: &str) -> Result<Hold, String> {
    match text {
        "call" => Ok(Hold::Call),
        "batch" => Ok(Hold::Batch),
        _ => Err(format!("@hold(\"{text}\"); expected \"call\" or \"batch\"")),
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let read = |(unit, seconds): (char, u64)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(seconds);
    let seconds = units.into_iter().find_map(read);
    seconds.filter(|seconds| (1..=APPROVAL_SECONDS_MAX).contains(seconds)).ok_or_else(|| {
        let days = APPROVAL_SECONDS_MAX / 86_400;
        format!("@expires(\"{text}\"); expected a whole number with s, m, h or d, such as \"2h\", at most {days}d")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Effect;

    fn check(annotations: &str, expected: &str) {
        let policy = Policy::parse(None, format!("{annotations} permit (principal, action, resource);")).unwrap();
        let got = match Asked::of_policy(&policy) {
            Ok(None) => "nothing".to_owned(),
            Ok(Some(Asked { quorum, seconds, hold })) => format!("{quorum} {seconds} {hold:?}"),
            Err(error) => error,
        };
        assert!(got.starts_with(expected), "{annotations}: {got}");
    }

    #[test]
    fn annotations_are_read_or_refused() {
        check("", "nothing");
        check("@id(\"x\") @description(\"y\")", "nothing");
        check("@approval(\"always\")", "1 604800 Call");
        check("@approval(\"quorum 3\") @expires(\"2h\") @hold(\"batch\")", "3 7200 Batch");
        check("@approval(\"always\") @expires(\"90d\") @hold(\"call\")", "1 7776000 Call");
        check("@approval(\"always\") @expires(\"1s\")", "1 1 Call");
        check("@approval(\"always\") @expires(\"5m\")", "1 300 Call");
        for wrong in ["sometimes", "quorum", "quorum 0", "quorum 17", "quorum 300", "quorum -1", "quorum  2", ""] {
            check(&format!("@approval(\"{wrong}\")"), &format!("@approval(\"{wrong}\"); expected \"always\" or"));
        }
        for wrong in ["2", "2w", "h", "0s", "91d", "-1h", "1.5h", "99999999999999999d", ""] {
            let wrong_text = format!("@expires(\"{wrong}\"); expected a whole number with s, m, h or d");
            check(&format!("@approval(\"always\") @expires(\"{wrong}\")"), &wrong_text);
        }
        check("@approval(\"always\") @hold(\"turn\")", "@hold(\"turn\"); expected \"call\" or \"batch\"");
        check("@hold(\"batch\")", "`@hold` without `@approval`");
        check("@expires(\"2h\")", "`@expires` without `@approval`");
        check("@aproval(\"always\")", "unknown annotation `@aproval`; hint: known are @id, @description, @approval");
    }

    #[test]
    fn contracts_ask_by_their_approval() {
        for (approval, quorum) in [
            (Approval::Policy, None),
            (Approval::Never, None),
            (Approval::Always, Some(1)),
            (Approval::Quorum(0), Some(1)),
            (Approval::Quorum(4), Some(4)),
        ] {
            let contract = Contract { approval, ..Contract::of(Effect::Write) };
            assert_eq!(Asked::of_contract(&contract), quorum.map(Asked::of_quorum), "{approval:?}");
        }
    }
}
