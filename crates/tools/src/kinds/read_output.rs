//! `read_output`: pages through the stored whole of an output that was shown in part.

use super::Job;
use crate::Outcome;
use crate::output::head;
use crate::reason::Reason;
use domain::{Id, ToolSpec, id};

const DESCRIPTION: &str = "Reads on in an earlier output that was truncated. The truncation marker names the output and the offset to read on from.";
const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "output": {"type": "string", "minLength": 1, "description": "The output's id as the truncation marker gives it, such as call_0198…"},
    "offset": {"type": "integer", "minimum": 0, "description": "Byte to start at. Default 0."},
    "bytes": {"type": "integer", "minimum": 1, "description": "How many bytes to read. Default and maximum: what one output shows at once."}
  },
  "required": ["output"]
}"#;

pub(crate) fn spec() -> ToolSpec {
    super::spec("read_output", DESCRIPTION, SCHEMA)
}

pub(crate) async fn run(job: &Job<'_>) -> Outcome {
    let unknown = |id: &str| {
        let id = crate::output::brief(id, 64);
        Outcome::error(
            Reason::OutputUnknown.code(),
            format!("There is no stored output `{id}` in this session. Use the id that a truncation marker names."),
        )
    };
    let asked = job.text("output").unwrap_or_default();
    let Ok(call) = asked.parse::<Id<id::Call>>() else { return unknown(asked) };
    let offset = job.number("offset").unwrap_or(0);
    let bytes_max = job.number("bytes").unwrap_or(u64::MAX).min(job.contract.output_bytes_max);
    // Up to three bytes more, so that a character that begins at the end is whole.
    let Some((page, total)) = job.bench.whole(call, offset, bytes_max.saturating_add(3)).await else {
        return unknown(asked);
    };
    if offset > total || (offset == total && total > 0) {
        return Outcome::error(
            Reason::OutputOffset.code(),
            format!("The output `{call}` ends at byte {total}; offset {offset} is beyond its end."),
        );
    }
    let (text, bytes) = head(&page, usize::try_from(bytes_max).unwrap_or(usize::MAX));
    let end = offset.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    let rest = if end < total {
        format!("read on with {{\"output\":\"{call}\",\"offset\":{end}}}")
    } else {
        "this is its end".to_owned()
    };
    Outcome::text(format!("Bytes {offset} to {end} of {total}; {rest}\n\n{text}"))
}
