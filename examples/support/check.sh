#!/bin/sh
# Runs the example on its transcript, on a copy of its database, and looks at what came of it: replies that name the
# invoices of the account that was asked about, and drafts in the database.
set -eu
unset OPENAI_API_KEY OPENAI_BASE_URL OPENAI_MODEL
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

project=$scratch/project
mkdir "$project"
cp -R topside.yaml agents models tools transcripts support.db "$project"

# Asks Maya $1 and expects the reply $2.
ask() {
  topside run maya "$1" --project "$project" --data "$scratch/data" > "$scratch/reply" 2> "$scratch/talk" ||
    fail "the run failed:" "$(cat "$scratch/talk")"
  grep -qxF "$2" "$scratch/reply" || fail "expected: $2" "got: $(cat "$scratch/reply")"
  grep -q 'model: transcript "transcript of Maya" (no model was called)' "$scratch/talk" ||
    fail "does not say that no model was called:" "$(cat "$scratch/talk")"
}

# The text of a draft stands in the file as it is.
drafted() {
  grep -qaF "$1" "$project/support.db"
}

if drafted "Hello Harbour Bakery"; then fail "the database holds a draft already"; fi
ask "Account 1042 says it was charged twice in May. Find out and draft a reply." \
  "Harbour Bakery (account 1042) was charged 49.00 USD twice: invoices INV-20643 and INV-20659. Draft 1 is ready for a person to read and send."
drafted "Hello Harbour Bakery" || fail "the first draft is not in the database"
drafted "billing@harbour-bakery.example." || fail "the first draft is cut"

# Another account, another answer.
ask "Account 1073 says it was charged twice in May. Find out and draft a reply." \
  "Saltmarsh Surveys (account 1073) was charged 199.00 USD twice: invoices INV-20645 and INV-20660. Draft 2 is ready for a person to read and send."
drafted "Hello Saltmarsh Surveys" || fail "the second draft is not in the database"

ask "I was charged twice." "Which account is it about? Please send me its number."

# An account that was not charged twice does not follow the transcript, and the run says so.
if topside run maya "Account 1017 says it was charged twice." --project "$project" --data "$scratch/data" \
  > "$scratch/reply" 2> "$scratch/talk"; then
  fail "told account 1017 that it was charged twice:" "$(cat "$scratch/reply")"
fi
grep -q 'script_unmatched' "$scratch/talk" || fail "failed otherwise:" "$(cat "$scratch/talk")"
if drafted "Hello Northlight Studio"; then fail "drafted a reply for account 1017"; fi
