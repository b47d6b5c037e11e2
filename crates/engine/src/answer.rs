//! What the model is told of a call that is not performed, or that is known of otherwise than by its own return.

use crate::Error;
use crate::driver::Driver;
use crate::facts::{Given, Reason};
use crate::prompt;
use domain::{CallStatus, ContentRef, Id, Part, id};
use machine::{Answer, Run};

impl Driver {
    /// What the model is told.
    pub(crate) async fn answer(&mut self, run: &Run, id: Id<id::Call>, answer: Answer) -> Result<Given, Error> {
        let because = |reason, text: &str| Ok(Given::because(reason, text));
        match answer {
            Answer::UnknownTool => {
                let name = self.calls.get(&id).map_or_else(String::new, |call| call.tool.clone());
                let ready = run.calls.get(&id).and_then(|call| self.ready_of(call.scope));
                let rejection = ready.map(|ready| ready.toolbox.unknown(&name));
                let told = rejection.map(|told| Given::told(CallStatus::Invalid, told.code, told.text));
                Ok(told.unwrap_or_else(|| Given::because(Reason::Erased, "There is no such tool.")))
            }
            Answer::Denied => because(Reason::Denied, "The policy does not allow this call."),
            Answer::Rejected { reason } => {
                let mut text = "The call was rejected by the person who had to approve of it.".to_owned();
                if let Some(reason) = self.told(reason.as_ref()).await? {
                    text = format!("{text} They say: {reason}");
                }
                because(Reason::Rejected, &text)
            }
            Answer::Expired => because(
                Reason::ApprovalExpired,
                "The call was not made: nobody approved of it in time. Say so, or do without it.",
            ),
            Answer::Unmet { output, .. } => {
                let mut text = "The call was not made, because a precondition is not met.".to_owned();
                if let Some(output) = output {
                    let parts = self.memory.parts_of(&self.inner.parts.journal, &self.key, &output).await?;
                    text = format!("{text} {}", texts(&parts));
                }
                because(Reason::Unmet, &text)
            }
            Answer::Interrupted { rolled_back } => because(Reason::Interrupted, interrupted(rolled_back)),
            Answer::Happened { output } => {
                let parts = self.memory.parts_of(&self.inner.parts.journal, &self.key, &output).await?;
                Ok(Given::of(CallStatus::Ok, parts.to_vec(), Some("call_resolved".into())))
            }
            Answer::DidNotHappen => because(
                Reason::DidNotHappen,
                "The harness was restarted while this call ran. It was looked into, and the call took no effect. You may make it again.",
            ),
            Answer::Compensated { .. } => because(
                Reason::Compensated,
                "The harness was restarted while this call ran, and its effect was undone.",
            ),
            Answer::Steered => {
                because(Reason::Cancelled, "The call was not made, because the user had something else to say.")
            }
            Answer::Nested { reply } => {
                let text = match reply {
                    Some(content) => {
                        let items = self.memory.items_of(&self.inner.parts.journal, &self.key, &content).await?;
                        prompt::text_of(&items)
                    }
                    None => String::new(),
                };
                Ok(Given::of(CallStatus::Ok, vec![Part::text(text)], None))
            }
            Answer::NestedLimit { failure } => {
                because(Reason::NestedLimit, &format!("The agent did not finish: {}.", failure.message))
            }
        }
    }

    async fn told(&mut self, content: Option<&ContentRef>) -> Result<Option<String>, Error> {
        match content {
            Some(content) => self.inner.text(&self.key, content).await,
            None => Ok(None),
        }
    }
}

const fn interrupted(rolled_back: bool) -> &'static str {
    if rolled_back {
        "The harness was restarted while this call ran, and the call was ended. The workspace is as it was at the end of the turn before."
    } else {
        "The harness was restarted while this call ran, and the call was ended. What it had changed in the workspace until then may be there. \
         Look before you repeat it."
    }
}

fn texts(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Text { text } => Some(text.clone()),
        Part::Image { .. } => None,
    };
    parts.iter().filter_map(text).collect::<Vec<_>>().join("\n")
}
