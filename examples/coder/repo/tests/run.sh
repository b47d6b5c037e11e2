#!/bin/sh
# Runs every case in both directions and prints TAP; ends with 1 if any fails. A case: seconds, a blank, the text.
set -u
cd "$(dirname "$0")/.." || exit 2

number=0
failed=0

# same WHAT EXPECTED GOT
same() {
  number=$((number + 1))
  if [ "$2" = "$3" ]; then
    echo "ok $number - $1"
  else
    failed=$((failed + 1))
    echo "not ok $number - $1: expected '$2', got '$3'"
  fi
}

while read -r seconds text; do
  same "say $seconds" "$text" "$(sh bin/duration say "$seconds" 2>&1)"
  same "read $text" "$seconds" "$(sh bin/duration read "$text" 2>&1)"
done < tests/cases.txt

echo "1..$number"
[ "$failed" -eq 0 ]
