#!/bin/sh
# Runs the example on its transcript and works out again, from the data alone, what report and chart must say: for the
# data as they are, for every second row of them, and for one city. Other data, other report.
set -eu
unset OPENAI_API_KEY OPENAI_BASE_URL OPENAI_MODEL
export LC_ALL=C
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

# The rows of the report that one pass over the data can tell.
rows() {
  awk -F, '
    NR > 1 {
      if (!($1 in days)) city[++cities] = $1
      days[$1]++; all++; sum[$1] += $3; wet[$1] += $3 > 0; middle[$1] += ($4 + $5) / 2
      if (!($1 in hot) || $4 + 0 > hot[$1] + 0) { hot[$1] = $4; hot_day[$1] = $2 }
    }
    END {
      # Cities stand in alphabetical order.
      for (i = 1; i <= cities; i++) for (j = i + 1; j <= cities; j++)
        if (city[j] < city[i]) { kept = city[i]; city[i] = city[j]; city[j] = kept }
      head = "| |"; mean = "| mean temperature |"; hottest = "| hottest day |"; often = "| days with precipitation |"
      year = "| precipitation in a year |"
      for (i = 1; i <= cities; i++) {
        name = city[i]; mm = sprintf("%.0f", sum[name] / days[name] * 365.25 + 0.001)
        if (length(mm) > 3) mm = substr(mm, 1, length(mm) - 3) "," substr(mm, length(mm) - 2)
        head = head " " name " |"; year = year " " mm " mm |"
        mean = mean sprintf(" %.1f °C |", middle[name] / days[name])
        hottest = hottest sprintf(" %s °C, %s |", hot[name], hot_day[name])
        often = often sprintf(" %.0f %% |", 100 * wet[name] / days[name])
      }
      print head; print mean; print hottest; print year; print often
    }' "$1"
}

# What each mark of the chart must say, one line for each city, month and unit.
marks() {
  awk -F, '
    BEGIN {
      split("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec", name, " ")
      split("31 28.25 31 30 31 30 31 31 30 31 30 31", full, " ")
    }
    NR > 1 { m = substr($2, 6, 2) + 0; days[$1 "," m]++; sum[$1 "," m] += $3; middle[$1 "," m] += ($4 + $5) / 2 }
    END {
      for (key in days) {
        split(key, part, ",")
        printf "%s, %s (mm): %.4f\n", part[1], name[part[2]], sum[key] / days[key] * full[part[2]]
        printf "%s, %s (°C): %.4f\n", part[1], name[part[2]], middle[key] / days[key]
      }
    }' "$1"
}

# Runs the analyst on project $1 with data directory $2 and looks at what it leaves.
check() {
  topside run analyst "What is the weather like in these two cities?" --project "$1" --data "$2" \
    > "$2.reply" 2> "$2.talk" || fail "the run failed:" "$(cat "$2.talk")"
  grep -q 'model: transcript "transcript of the analyst" (no model was called)' "$2.talk" ||
    fail "does not say that no model was called:" "$(cat "$2.talk")"
  for file in report.md chart.svg; do
    path=$(sed -n "s|^file: \(.*/$file\)\$|\1|p" "$2.talk")
    [ -s "$path" ] || fail "no $file among:" "$(cat "$2.talk")"
    cp "$path" "$2.$file"
  done
  rows "$1/data/weather.csv" > "$2.rows"
  [ "$(wc -l < "$2.rows")" -eq 5 ]
  while read -r row; do
    grep -qxF "$row" "$2.report.md" || fail "the report lacks: $row" "$(cat "$2.report.md")"
    grep -qxF "$row" "$2.reply" || fail "the reply lacks: $row" "$(cat "$2.reply")"
  done < "$2.rows"
  marks "$1/data/weather.csv" > "$2.marks"
  sed -n 's|.*<title>\(.*\): \(.*\) \(.*\)</title>.*|\1 (\3): \2|p' "$2.chart.svg" > "$2.drawn"
  awk -F': ' '
    NR == FNR { want[$1] = $2; next }
    { slack = ($1 ~ /mm/) ? 0.5001 : 0.0501; off = $2 - want[$1] }
    !($1 in want) || off > slack || off < -slack { print "drawn: " $0 ", but the data say " want[$1]; wrong = 1 }
    { delete want[$1] }
    END { for (mark in want) { print "not drawn: " mark; wrong = 1 } exit wrong }
  ' "$2.marks" "$2.drawn" >&2 || fail "the chart's marks are not the data's"
  # Each bar is as high as it says, to a pixel.
  sed -n 's|.*height="\([0-9.]*\)".*: \([0-9]*\) mm</title>.*|\1 \2|p' "$2.chart.svg" | sort -n | awk '
    { height[NR] = $1; mm[NR] = $2 }
    END {
      for (i = 1; i <= NR; i++) { off = height[i] - mm[i] * height[NR] / mm[NR]; if (off > 1 || off < -1) exit 1 }
      exit NR == 0
    }' || fail "the chart's bars are not as high as they say"
  [ "$(tail -n 1 "$2.chart.svg")" = "</svg>" ] || fail "the chart has no end"
}

# A copy of the project with those rows of the data that the awk program $2 picks.
other() {
  mkdir "$scratch/$1-project"
  cp -R topside.yaml agents models manifests transcripts data "$scratch/$1-project"
  awk "NR == 1 || ($2)" data/weather.csv > "$scratch/$1-project/data/weather.csv"
  check "$scratch/$1-project" "$scratch/$1"
  if cmp -s "$scratch/$1.report.md" "$scratch/whole.report.md"; then fail "$1: other data, the same report"; fi
  if cmp -s "$scratch/$1.chart.svg" "$scratch/whole.chart.svg"; then fail "$1: other data, the same chart"; fi
}

check . "$scratch/whole"
for file in report.md chart.svg; do
  cmp -s "expected/$file" "$scratch/whole.$file" ||
    fail "expected/$file is not what the analyst leaves:" "$(diff "expected/$file" "$scratch/whole.$file")"
done
other half 'NR % 2 == 0'
other city '/^Seattle,/'
