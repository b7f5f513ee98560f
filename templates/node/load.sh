# Gets an archive of images out of the cluster's bucket, by the machine's own role, and puts it into containerd's store. Arguments: the
# archive's SHA-256, and its object, which is compressed.
set -eu
umask 077
imds='http://169.254.169.254'
bucket='{{ url }}'
region='{{ region }}'
account='{{ account }}'
ctr() { {{ bundle }}/bin/ctr --namespace k8s.io images "$@"; }
fail() {
	echo "$1" >&2
	exit 1
}
{% include "shell/imds.sh" -%}
{% include "shell/bucket.sh" -%}
# Where a minion notes what it has.
home=/var/lib/kup/boot
mkdir -p /var/lib/kup
# What a kill left.
find /var/lib/kup -maxdepth 1 -name 'load.*' -mmin +60 -exec rm -rf {} +
work=$(mktemp -d /var/lib/kup/load.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
login || fail "$why"
get "$2" "$work/image.gz" 1200 || fail "$why"
gzip -dc < "$work/image.gz" > "$work/image"
rm "$work/image.gz"
have=$(sha256sum < "$work/image")
[ "${have%% *}" = "$1" ] || fail "$2 in the bucket is not the archive that was put there"
ctr import "$work/image"
[ ! -d "$home" ] || echo "$1" >> "$home/images"
echo kup-stored
ctr ls
echo kup-loaded
