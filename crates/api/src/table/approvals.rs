//! Calls that wait for approval.

use super::{APPROVE, BODY_REFUSALS, CURSOR, IDEMPOTENCY_KEY, KEY_CONFLICT, LIMIT, NO_APPROVAL, body, plain};
use crate::endpoint::{Answer, Endpoint, Method, Operation, Request, of};
use crate::{Approval, ApprovalList, PostApproval, Refusal};

pub(super) const LIST_APPROVALS: Endpoint = Endpoint {
    description: "Oldest first, of all runs, also those that nested agents want to make.",
    query: &[CURSOR, LIMIT],
    answers: &[Answer { status: 200, description: "A page of calls.", bodies: &[body(of::<ApprovalList>)] }],
    refusals: &[Refusal::RequestInvalid],
    example: r#"call=$(curl -s {auth}{base}/approvals | sed -n 's/.*"call_id":"\([^"]*\)".*/\1/p')
curl -s {auth}{base}/approvals"#,
    ..plain(Operation::ListApprovals, "listApprovals", "/approvals", "List the calls that wait for approval")
};

pub(super) const GET_APPROVAL: Endpoint = Endpoint {
    description: "What is to be done with which arguments, on whose behalf, and what an approval of it is bound to.",
    answers: &[Answer { status: 200, description: "The call.", bodies: &[body(of::<Approval>)] }],
    errors: &[NO_APPROVAL],
    example: r#"curl -s {auth}{base}/approvals/$call"#,
    ..plain(Operation::GetApproval, "getApproval", "/approvals/{call_id}", "A call that waits for approval")
};

pub(super) const POST_APPROVAL: Endpoint = Endpoint {
    method: Method::Post,
    access: APPROVE,
    description: "Votes are of distinct principals, and never of the one on whose behalf the call is made; that one may reject it. One \
                  rejection is enough. Without keys, votes are cast as principal `operator`.",
    headers: &[IDEMPOTENCY_KEY],
    request: Request::Required(body(of::<PostApproval>)),
    answers: &[Answer {
        status: 200,
        description: "The call as it stands with the vote.",
        bodies: &[body(of::<Approval>)],
    }],
    refusals: BODY_REFUSALS,
    errors: &[
        NO_APPROVAL,
        KEY_CONFLICT,
        (409, "approval_decided"),
        (409, "approval_expired"),
        (409, "approval_not_held"),
        (409, "approval_requester"),
        (409, "approval_stale"),
        (409, "approval_twice"),
    ],
    example: r#"curl -s {auth}{base}/approvals/$call -H 'content-type: application/json' \
  -d '{"vote": "reject", "reason": "Not today."}'"#,
    ..plain(Operation::PostApproval, "postApproval", "/approvals/{call_id}", "Approve of a call, or reject it")
};
