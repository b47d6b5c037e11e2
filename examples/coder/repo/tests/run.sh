#!/bin/sh
# Runs every case: the seconds, a space, and what is expected.
set -u
cd "$(dirname "$0")/.." || exit 2

passed=0
failed=0
while read -r seconds expected; do
  got=$(sh bin/duration "$seconds")
  if [ "$got" = "$expected" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAIL %s: expected "%s", got "%s"\n' "$seconds" "$expected" "$got"
  fi
done < tests/cases.txt
printf 'passed=%d failed=%d\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
