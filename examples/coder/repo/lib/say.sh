# say SECONDS: prints a duration as people write it.
say() {
  hours=$(($1 / 3600))
  minutes=$(($1 / 60))
  rest=$(($1 % 60))
  if [ "$hours" -gt 0 ]; then
    printf '%dh %02dm %02ds\n' "$hours" "$minutes" "$rest"
  elif [ "$minutes" -gt 0 ]; then
    printf '%dm %02ds\n' "$minutes" "$rest"
  else
    printf '%ds\n' "$rest"
  fi
}
