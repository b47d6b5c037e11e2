#!/bin/sh
# Runs the example on its transcript and looks at what came of it: passing tests and the difference, and the repository
# on this side untouched.
set -eu
unset OPENAI_API_KEY OPENAI_BASE_URL OPENAI_MODEL
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT

expect() {
  case $2 in
    *"$1"*) ;;
    *)
      printf 'expected %s in:\n%s\n' "$1" "$2" >&2
      exit 1
      ;;
  esac
}

before=$(cat repo/bin/duration)
said=$(topside run coder "The tests fail. Find out why and mend it." --project . --data "$data" 2>&1)
expect "The tests pass: 8 of 8." "$said"
expect '+minutes=$((seconds / 60 % 60))' "$said"
[ "$before" = "$(cat repo/bin/duration)" ]
