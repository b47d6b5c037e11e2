# read_text TEXT: prints the seconds of a duration that people wrote.
read_text() {
  total=0
  for part in $1; do
    count=${part%?}
    case $part in
      *h) total=$((total + count * 3600)) ;;
      *m) total=$((total + count * 60)) ;;
      *s) total=$((total + count)) ;;
      *)
        echo "no duration: $1" >&2
        return 1
        ;;
    esac
  done
  echo "$total"
}
