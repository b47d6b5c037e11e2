#!/bin/sh
# Runs the example on its transcript and looks at what came of it: a reply that names the invoices, and a draft in the
# database. Other data gives another reply.
set -eu
unset OPENAI_API_KEY OPENAI_BASE_URL OPENAI_MODEL
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT

ask() {
  topside run maya "$1" --project . --data "$data"
}

expect() {
  case $2 in
    *"$1"*) ;;
    *)
      printf 'expected %s in:\n%s\n' "$1" "$2" >&2
      exit 1
      ;;
  esac
}

said=$(ask "Account 1042 says it was charged twice in May. Find out and draft a reply." 2>&1)
expect "Harbour Bakery (account 1042) was charged 49.00 USD twice: invoices INV-20643 and INV-20659." "$said"
said=$(ask "Account 1073 says it was charged twice in May. Find out and draft a reply." 2>&1)
expect "Saltmarsh Surveys (account 1073) was charged 199.00 USD twice: invoices INV-20645 and INV-20660." "$said"
said=$(ask "I was charged twice." 2>&1)
expect "Which account is it about?" "$said"
