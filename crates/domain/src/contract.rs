//! What a tool declares about itself so that a harness can keep promises about it.

use serde::{Deserialize, Serialize};

/// How far a call's effects reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Changes nothing.
    Read,
    /// Changes its own sandbox or its declared store.
    Write,
    /// Reaches the outside world.
    External,
    /// Reaches the outside world and can't be taken back.
    Destructive,
}

impl Effect {
    /// The name used in declarations and policies.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::External => "external",
            Self::Destructive => "destructive",
        }
    }
}

/// Where the key comes from under which the other side knows a repeated call for the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idempotency {
    /// The other side knows no keys.
    #[default]
    None,
    /// A key per call.
    Call,
    /// The digest of the arguments.
    Arguments,
    /// The key that the caller of the run gave.
    Caller,
}

/// What a crash in the middle of a call allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repeat {
    /// The call may be made again.
    Safe,
    /// The call must not be made twice.
    Once,
}

/// How an effect is taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rollback {
    /// It is not.
    #[default]
    None,
    /// The workspace goes back to its checkpoint.
    Checkpoint,
    /// Another tool compensates.
    Compensate {
        /// That tool's name.
        with: String,
    },
}

/// Who must agree before the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// Nobody beyond what the policy says.
    #[default]
    Policy,
    /// Nobody; a policy may still deny.
    Never,
    /// One person.
    Always,
    /// So many distinct people.
    Quorum(u8),
}

/// What must hold before a call begins. What is not met is told to the model, and the call is not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precondition {
    /// The arguments fit a further JSON Schema.
    Arguments {
        /// The schema, as JSON text.
        schema: String,
        /// What the model is told otherwise.
        message: String,
    },
    /// A declared tool that reads gives what is expected.
    Tool {
        /// That tool's name.
        tool: String,
        /// Its arguments: a JSON object as text. A string that is `${arguments.NAME}` stands for that argument of the call, in its
        /// own type; within a longer string it is put in as text.
        arguments: String,
        /// JSON Schema of what it gives, as JSON text.
        expect: String,
        /// What the model is told otherwise.
        message: String,
    },
}

/// A piece of a text in the arguments of a precondition's tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it stands.
    Text(&'a str),
    /// `${arguments.NAME}`: that argument of the call, by its name.
    Argument(&'a str),
}

/// Cuts a text into what stands as it is and what stands for an argument, in order. What is no whole `${arguments.NAME}` is text.
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    const OPEN: &str = "${arguments.";
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once(OPEN) {
        let Some((name, behind)) = after.split_once('}') else { break };
        if !before.is_empty() {
            found.push(Piece::Text(before));
        }
        found.push(Piece::Argument(name));
        rest = behind;
    }
    if !rest.is_empty() {
        found.push(Piece::Text(rest));
    }
    found
}

/// How often, and how long, a call that failed for a passing reason is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// The wait before the second attempt; doubled with each.
    pub backoff_ms: u64,
    /// The longest wait.
    pub backoff_ms_max: u64,
    /// Time from the first attempt after which nothing is tried any more.
    pub total_ms: u64,
}

impl Retry {
    /// Never again.
    pub const NONE: Self = Self { attempts: 1, backoff_ms: 0, backoff_ms_max: 0, total_ms: 0 };

    /// What holds for a call that may be repeated, when nothing is declared.
    pub const REPEATABLE: Self = Self { attempts: 3, backoff_ms: 1_000, backoff_ms_max: 10_000, total_ms: 60_000 };
}

/// A tool's contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Contract {
    /// How far its effects reach.
    pub effect: Effect,
    /// Its idempotency key.
    pub idempotency: Idempotency,
    /// What a crash allows.
    pub repeat: Repeat,
    /// How it is taken back.
    pub rollback: Rollback,
    /// Who must agree.
    pub approval: Approval,
    /// Wall time after which the call is killed; 0 for a nested agent, which has limits of its own.
    pub timeout_ms: u64,
    /// What the model is shown of the output at most; the rest is kept and readable page by page.
    pub output_bytes_max: u64,
    /// What must hold before the call, in the order in which it is looked at.
    pub preconditions: Vec<Precondition>,
    /// How often it is made again when it fails for a passing reason.
    pub retry: Retry,
}

/// A contract as it stands in closures. What was added later is left out where it says nothing, so that closures of before keep
/// their bytes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    effect: Effect,
    #[serde(default)]
    idempotency: Idempotency,
    repeat: Repeat,
    #[serde(default)]
    rollback: Rollback,
    #[serde(default)]
    approval: Approval,
    timeout_ms: u64,
    output_bytes_max: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    preconditions: Vec<Precondition>,
    /// `None`: what holds when nothing is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<Retry>,
}

impl From<Written> for Contract {
    fn from(written: Written) -> Self {
        let Written { effect, idempotency, repeat, rollback, approval, timeout_ms, .. } = written;
        let Written { output_bytes_max, preconditions, retry, .. } = written;
        let retry = retry.unwrap_or_else(|| Self::retry_default(repeat, idempotency));
        let contract = Self::of(effect);
        Self { idempotency, repeat, rollback, approval, timeout_ms, output_bytes_max, preconditions, retry, ..contract }
    }
}

impl From<Contract> for Written {
    fn from(contract: Contract) -> Self {
        let declared = Some(contract.retry).filter(|retry| *retry != contract.retry_when_undeclared());
        let Contract { effect, idempotency, repeat, rollback, approval, timeout_ms, .. } = contract;
        let Contract { output_bytes_max, preconditions, .. } = contract;
        Self {
            effect,
            idempotency,
            repeat,
            rollback,
            approval,
            timeout_ms,
            output_bytes_max,
            preconditions,
            retry: declared,
        }
    }
}

impl Contract {
    /// The defaults for an effect: reads repeat, everything else happens once; 60 s; 32 KiB shown.
    pub const fn of(effect: Effect) -> Self {
        let repeat = match effect {
            Effect::Read => Repeat::Safe,
            Effect::Write | Effect::External | Effect::Destructive => Repeat::Once,
        };
        Self {
            effect,
            idempotency: Idempotency::None,
            repeat,
            rollback: Rollback::None,
            approval: Approval::Policy,
            timeout_ms: 60_000,
            output_bytes_max: 32 * 1024,
            preconditions: Vec::new(),
            retry: Self::retry_default(repeat, Idempotency::None),
        }
    }

    /// How often a call is made again when its contract does not say: a few times when it may be repeated, else never.
    pub const fn retry_default(repeat: Repeat, idempotency: Idempotency) -> Retry {
        match (repeat, idempotency) {
            (Repeat::Once, Idempotency::None) => Retry::NONE,
            _ => Retry::REPEATABLE,
        }
    }

    const fn retry_when_undeclared(&self) -> Retry {
        Self::retry_default(self.repeat, self.idempotency)
    }

    /// Whether it may be made again without doing harm: it is safe to repeat, or the other side knows a repetition by its key.
    pub fn is_repeatable(&self) -> bool {
        self.repeat == Repeat::Safe || self.idempotency != Idempotency::None
    }

    /// Whether nobody can know, after a crash in its middle, if the call took effect, and repeating could do harm.
    pub fn in_doubt_after_crash(&self) -> bool {
        matches!(self.effect, Effect::External | Effect::Destructive) && !self.is_repeatable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These bytes are in closures that exist: what is added must not change them.
    #[test]
    fn a_contract_that_says_no_more_than_before_keeps_its_bytes() {
        let keyed = Contract { idempotency: Idempotency::Call, ..Contract::of(Effect::External) };
        let keyed = Contract { retry: Contract::retry_default(keyed.repeat, keyed.idempotency), ..keyed };
        for (contract, written) in [
            (
                Contract::of(Effect::Read),
                r#"{"effect":"read","idempotency":"none","repeat":"safe","rollback":"none","approval":"policy","timeout_ms":60000,"output_bytes_max":32768}"#,
            ),
            (
                keyed,
                r#"{"effect":"external","idempotency":"call","repeat":"once","rollback":"none","approval":"policy","timeout_ms":60000,"output_bytes_max":32768}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&contract).unwrap(), written);
            assert_eq!(serde_json::from_str::<Contract>(written).unwrap(), contract);
        }
    }

    #[test]
    fn what_is_new_comes_back_as_it_was_written() {
        let precondition = Precondition::Tool {
            tool: "find".into(),
            arguments: "{}".into(),
            expect: "true".into(),
            message: "no".into(),
        };
        let contract = Contract {
            rollback: Rollback::Compensate { with: "undo".into() },
            approval: Approval::Quorum(2),
            preconditions: vec![Precondition::Arguments { schema: "true".into(), message: "no".into() }, precondition],
            retry: Retry { attempts: 2, ..Retry::REPEATABLE },
            ..Contract::of(Effect::Read)
        };
        let written = serde_json::to_string(&contract).unwrap();
        assert_eq!(serde_json::from_str::<Contract>(&written).unwrap(), contract);
        let foreign = written.replacen("\"effect\"", "\"x\":1,\"effect\"", 1);
        assert!(serde_json::from_str::<Contract>(&foreign).is_err(), "an unknown field is refused");
    }

    #[test]
    fn a_text_is_cut_at_its_arguments() {
        let check = |text: &str, expected: &str| {
            let told = |piece: &Piece<'_>| match piece {
                Piece::Text(text) => format!("[{text}]"),
                Piece::Argument(name) => format!("<{name}>"),
            };
            assert_eq!(pieces(text).iter().map(told).collect::<String>(), expected, "{text}");
        };
        check("", "");
        check("plain", "[plain]");
        check("${arguments.id}", "<id>");
        check("a ${arguments.id}, ${arguments.a b}${arguments.c}", "[a ]<id>[, ]<a b><c>");
        check("${arguments.open", "[${arguments.open]");
        check("${env.A}", "[${env.A}]");
    }

    #[test]
    fn a_retry_is_the_default_only_where_repeating_is_allowed() {
        for (repeat, idempotency, attempts) in [
            (Repeat::Once, Idempotency::None, 1),
            (Repeat::Safe, Idempotency::None, 3),
            (Repeat::Once, Idempotency::Arguments, 3),
            (Repeat::Once, Idempotency::Caller, 3),
        ] {
            assert_eq!(Contract::retry_default(repeat, idempotency).attempts, attempts, "{repeat:?} {idempotency:?}");
        }
    }
}
