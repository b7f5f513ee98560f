# incoming DIR: goes into a new directory below it, which is gone when this shell ends. DIR holds the bundle and nothing that others put
# there.
#
# Who lost the one who sent it may still be at work when the next one begins. So each has a directory of its own, which is removed by
# another only if no process works in it any more: what is renamed into place is always what the same process checked.
incoming() {
  mkdir -p "$1"
  cd "$1"
  base=$(pwd -P)
  pid=$(exec sh -c 'echo $PPID')
  for old in incoming incoming.*; do
    [ -e "$old" ] || continue
    case $(readlink "/proc/${old#incoming.}/cwd" 2>/dev/null) in
      "$base/$old"*) ;;
      *) rm -rf "$old" ;;
    esac
  done
  mkdir "incoming.$pid"
  cd "incoming.$pid"
  jobs=
  # Nobody may be left to hear its last words: that must not end it before it has cleaned up.
  trap '' PIPE
  trap 'exit 1' HUP TERM
  trap 'leave' EXIT
}
# Ends what is still at work in the directory, and removes it.
leave() {
  if [ -n "$jobs" ]; then
    kill $jobs 2> /dev/null || :
    wait $jobs 2> /dev/null || :
  fi
  cd "$base"
  # What these had started may each make one more file in it, at the moment when it was found empty.
  for _ in 1 2 3 4 5 6; do
    rm -rf "incoming.$pid" 2> /dev/null && break
  done
}
# settle BUNDLE: what is checked, in `new`, takes its place by one rename.
settle() {
  sync
  rm -rf "$1.old"
  [ ! -e "$1" ] || mv -T "$1" "$1.old"
  mv -T new "$1"
  rm -rf "$1.old"
}
