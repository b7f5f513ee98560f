#!/bin/sh
# Takes a snapshot of etcd on a master, checked, compressed, and with what is to be known of it beside it as JSON.
#   timer              from etcd's leader alone; kept in {% if backups.kind == "bucket" %}the cluster's bucket{% else %}/var/lib/kup/backups{% endif %}, where those of no more use are removed
#   send REASON        to standard output: the JSON on a line, the snapshot, and a line with its sum as the proof that it is whole;
#                      only from a member that knows a majority (ends with 3 where there is none)
#   send-any REASON    the same from any member that answers (ends with 3 where it doesn't)
# It holds all that the cluster knows: nobody but root may read it, and what is half done is in a directory of this process's own.
set -eu
umask 077
mode=$1
{%- if backups.kind == "bucket" %}
imds='http://169.254.169.254'
bucket='{{ backups.url }}'
region='{{ backups.region }}'
account='{{ backups.account }}'
{%- else %}
kept=/var/lib/kup/backups
{%- endif %}
bin={{ bundle }}/bin
ctl="$bin/etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kup/pki/etcd-ca.crt --cert=/etc/kup/pki/etcd-server.crt --key=/etc/kup/pki/etcd-server.key"

fail() {
	echo "$1" >&2
	exit "${2-1}"
}
# Runs a command whose words matter only if it fails.
quietly() {
	"$@" > words 2>&1 || { tail -n 3 words >&2; return 1; }
}
number() {
	printf '%s' "$text" | sed -n "s/.*\"$1\": *\([0-9][0-9]*\).*/\1/p" | head -n 1
}

# Those that lost their lives left their directories.
mkdir -p /var/lib/kup
cd /var/lib/kup
for old in snapshot.*; do
	[ -e "$old" ] || continue
	case $(readlink "/proc/${old#snapshot.}/cwd" 2> /dev/null) in
		"$(pwd -P)/$old"*) ;;
		*) rm -rf "$old" ;;
	esac
done
work=$(pwd -P)/snapshot.$$
mkdir "$work"
# Nobody may be left to hear its last words: that must not end it before it has cleaned up.
trap '' PIPE
trap 'exit 1' HUP INT TERM
trap 'cd /; rm -rf "$work"' EXIT
cd "$work"

# take REASON: leaves $name.db.gz and $name.json.
take() {
	reason=$1
	time=$(date -u +%Y%m%dT%H%M%SZ)
	quietly timeout 900 $ctl snapshot save db || fail 'etcd gave no snapshot'
	text=$("$bin/etcdutl" snapshot status db --write-out=json 2> words) || { tail -n 3 words >&2; fail 'the snapshot is not sound'; }
	revision=$(number revision)
	[ -n "$revision" ] || fail 'the snapshot names no revision'
	# etcd ends it with the sum of all that comes before.
	have=$(head -c -32 db | sha256sum) want=$(tail -c 32 db | od -An -v -tx1 | tr -d ' \n')
	[ "${have%% *}" = "$want" ] || fail 'the snapshot has another checksum than it says'
	gzip -1 -n db
	name=etcd-$time-$revision-$reason
	mv db.gz "$name.db.gz"
	size=$(stat -c %s "$name.db.gz")
	sum=$(sha256sum < "$name.db.gz")
	sum=${sum%% *}
	printf '{"name":"%s","cluster":"%s","revision":%s,"reason":"%s","kubernetes":"%s","size":%s,"sha256":"%s","keys":%s,"network":%s}\n' "$name" \
		'{{ cluster.name }}' "$revision" "$reason" '{{ cluster.kubernetes.version }}' "$size" "$sum" \
		'{{ encryption_marks | tojson }}' \
		'{"pods":"{{ cluster.network.pods }}","services":"{{ cluster.network.services }}","dns":"{{ cluster.network.dns }}","domain":"{{ cluster.network.domain }}"}' \
		> "$name.json"
}

if [ "$mode" != timer ]; then
	if [ "$mode" = send ]; then quietly $ctl endpoint health || fail 'etcd has no majority here' 3; fi
	quietly $ctl endpoint status || fail 'etcd does not answer' 3
	take "$2"
	# From now on nothing of it has a name, whatever happens.
	exec 3< "$name.db.gz"
	about=$(cat "$name.json")
	rm -f "$name.db.gz" "$name.json"
	printf '%s\n' "$about"
	cat <&3
	printf 'kup-sent %s\n' "$sum"
	exit
fi

{% include "shell/outdated.sh" -%}

[ ! -e /var/lib/kup/etcd-restore ] || { echo 'a restore is under way: nothing is kept of now'; exit 0; }
text=$($ctl endpoint status --write-out=json) || fail 'etcd does not answer'
[ "$(number member_id)" = "$(number leader)" ] || { echo 'another master leads, and takes the snapshots'; exit 0; }
{% if backups.kind == "bucket" %}
{% include "shell/imds.sh" -%}
# s3 METHOD PATH SUM [CURL'S ARGUMENTS...]: SUM is that of what is sent.
s3() {
	method=$1 path=$2 sum=$3
	shift 3
	printf 'user = "%s:%s"\nheader = "x-amz-security-token: %s"\nheader = "x-amz-content-sha256: %s"\nheader = "x-amz-expected-bucket-owner: %s"\n' \
		"$key" "$secret" "$session" "$sum" "$account" |
		curl -sS -m 900 -K - --aws-sigv4 "aws:amz:$region:s3" -X "$method" -f "$@" "$bucket$path"
}
nothing=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
put() {
	s3 PUT "/backups/$1" "$2" -T "$1" -o answer || fail "$1 could not be put into the bucket"
}
listed() {
	s3 GET '?list-type=2&prefix=backups%2Fetcd-' "$nothing" -o list || fail 'the bucket does not list its snapshots'
	sed 's|</Key>|\n|g' list | sed -n 's|.*<Key>backups/\(etcd-[0-9A-Za-z-]*\)\.json$|\1|p'
}
remove() {
	# What tells of it goes first: a snapshot that nothing tells of is none.
	for end in json db.gz; do
		s3 DELETE "/backups/$1.$end" "$nothing" -o answer || fail "$1 could not be removed from the bucket"
	done
}
{% else %}
listed() {
	(cd "$kept" && ls) | sed -n 's|^\(etcd-[0-9A-Za-z-]*\)\.json$|\1|p'
}
remove() {
	# What tells of it goes first: a snapshot that nothing tells of is none.
	rm -f "$kept/$1.json"
	rm -f "$kept/$1.db.gz"
}
{% endif %}
take timer
{%- if backups.kind == "bucket" %}
login || fail "$why"
put "$name.db.gz" "$sum"
about=$(sha256sum < "$name.json")
put "$name.json" "${about%% *}"
{%- else %}
mkdir -p "$kept"
sync "$name.db.gz" "$name.json"
mv -f "$name.db.gz" "$kept"
mv -f "$name.json" "$kept"
sync "$kept"
{%- endif %}
echo "$name, $size bytes"
listed > names
outdated "$(date +%s)" < names > old
while read -r name; do
	remove "$name"
	echo "removed $name"
done < old
{%- if backups.kind != "bucket" %}
# Of those whose time ended between the two halves.
for file in "$kept"/etcd-*.db.gz; do
	[ -e "$file" ] && [ ! -e "${file%.db.gz}.json" ] || continue
	rm -f "$file"
done
{%- endif %}
