# Takes in the bundle from standard input: checked as it came, unpacked, each file checked, and put in its place by one rename.
# receive SHA256 DIR BUNDLE: DIR holds the bundle and nothing that others put there.
#
# A receiver that lost its sender may still be at work when the next one begins. So each has a directory of its own, which is removed
# by another only if no process works in it any more: what is renamed into place is always what the same process checked.
receive() (
  set -eu
  umask 022
  sum=$1 bundle=$3
  mkdir -p "$2"
  cd "$2"
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
  # Nobody may be left to hear its last words: that must not end it before it has cleaned up.
  trap '' PIPE
  trap 'exit 1' HUP TERM
  trap 'cd "$base"; rm -rf "incoming.$pid"' EXIT
  cat > pack
  echo "$sum  pack" | sha256sum -c --status - || { echo "what arrived has another checksum than what was sent" >&2; exit 1; }
  mkdir new
  tar -xzpf pack -C new --no-same-owner
  rm pack
  (cd new && sha256sum -c --quiet SHA256SUMS)
  sync
  rm -rf "$bundle.old"
  [ ! -e "$bundle" ] || mv -T "$bundle" "$bundle.old"
  mv -T new "$bundle"
  rm -rf "$bundle.old"
  echo kup-unpacked
)
