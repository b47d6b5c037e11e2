#!/bin/sh
# Runs the example on its transcript and looks at what came of it: a difference that mends a fresh copy of the
# repository, which on this side stays as it was. A repository with nothing to mend fails the run.
set -eu
unset OPENAI_API_KEY OPENAI_BASE_URL OPENAI_MODEL
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

# Runs the coder on project $1 with data directory $2.
mend() {
  topside run coder "The tests fail. Find out why and mend it." --project "$1" --data "$2" > "$2.reply" 2> "$2.talk"
}

cp -R repo "$scratch/before"
mend . "$scratch/data" || fail "the run failed:" "$(cat "$scratch/data.talk")"
diff -r repo "$scratch/before" > /dev/null || fail "the project's own repository was changed"
grep -q 'model: transcript "transcript of the coder" (no model was called)' "$scratch/data.talk" ||
  fail "does not say that no model was called:" "$(cat "$scratch/data.talk")"
grep -qx 'The tests pass, 16 of 16. There were two mistakes:' "$scratch/data.reply" ||
  fail "says something else:" "$(cat "$scratch/data.reply")"

fix=$(sed -n 's|^file: \(.*/fix\.diff\)$|\1|p' "$scratch/data.talk")
[ -s "$fix" ] || fail "no fix.diff among:" "$(cat "$scratch/data.talk")"
grep -c '^+++ ' "$fix" | grep -qx 2 || fail "does not change two files:" "$(cat "$fix")"
while read -r line; do
  grep -qF -e "$line" "$scratch/data.reply" || fail "the reply lacks: $line"
done < "$fix"

# The difference is what mends it.
cp -R repo "$scratch/after"
cp "$fix" "$scratch/fix.diff"
if sh "$scratch/after/tests/run.sh" > /dev/null; then fail "the repository has nothing to mend"; fi
if command -v git > /dev/null; then
  (cd "$scratch/after" && git apply ../fix.diff)
elif command -v patch > /dev/null; then
  (cd "$scratch/after" && patch --quiet --strip=1 < ../fix.diff)
else
  [ "${CI-}" != true ] || fail "neither git nor patch is found"
  echo "SKIPPED applying the difference: neither git nor patch is found"
  exit 0
fi
sh "$scratch/after/tests/run.sh" > "$scratch/tests" || fail "the difference does not mend it:" "$(cat "$scratch/tests")"
diff -r repo/tests "$scratch/after/tests" > /dev/null || fail "the difference changes the tests"

# A transcript never says that it mended what was not broken.
mkdir "$scratch/whole"
cp -R topside.yaml agents models manifests transcripts "$scratch/whole"
cp -R "$scratch/after" "$scratch/whole/repo"
if mend "$scratch/whole" "$scratch/unbroken"; then fail "mended what was not broken:" "$(cat "$scratch/unbroken.talk")"; fi
grep -q 'script_unmatched' "$scratch/unbroken.talk" || fail "fails otherwise:" "$(cat "$scratch/unbroken.talk")"
