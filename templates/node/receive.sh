# Takes in the bundle from standard input: checked as it came, unpacked, each file checked, and put in its place by one rename.
# receive SHA256 DIR BUNDLE: DIR holds the bundle.
{% include "shell/incoming.sh" -%}
receive() (
  set -eu
  umask 022
  sum=$1 bundle=$3
  incoming "$2"
  cat > pack
  echo "$sum  pack" | sha256sum -c --status - || { echo "what arrived has another checksum than what was sent" >&2; exit 1; }
  mkdir new
  tar -xzpf pack -C new --no-same-owner
  rm pack
  (cd new && sha256sum -c --quiet SHA256SUMS)
  settle "$bundle"
  echo kup-unpacked
)
