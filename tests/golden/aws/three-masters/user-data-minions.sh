#!/bin/sh
# What a minion of kup runs first: gets the node script from the cluster's bucket, checks it, and hands over to it.
set -eu
umask 077
imds='http://169.254.169.254'
bucket='https://kup-d9e3723bc803-aws-three-masters.s3.us-west-2.amazonaws.com'
region='us-west-2'
account='123456789012'
dir='/var/lib/kup/boot'
patience=180
mkdir -p "$dir"
cat > "$dir/settings" <<'END'
cluster=aws-three-masters
region=us-west-2
account=123456789012
bucket=https://kup-d9e3723bc803-aws-three-masters.s3.us-west-2.amazonaws.com
group=minions
END

say() {
	echo "kup: $*"
	{ echo "kup: $*" > /dev/console; } 2> /dev/null || :
}

# Secrets go to curl by its stdin, so that no list of processes shows them.
md() {
	printf 'header = "X-aws-ec2-metadata-token: %s"\n' "$token" | curl -sf -m 5 -K - "$imds/latest/meta-data/$1"
}
field() {
	printf '%s' "$json" | sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" | head -n 1
}
login() {
	why='the machine has no credentials yet'
	token=$(curl -sf -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$imds/latest/api/token") || return 1
	role=$(md iam/security-credentials/) || return 1
	json=$(md "iam/security-credentials/$role") || return 1
	key=$(field AccessKeyId) secret=$(field SecretAccessKey) session=$(field Token)
	[ -n "$key" ] && [ -n "$secret" ]
}
# get OBJECT FILE [SECONDS]: from the cluster's bucket, by the machine's own role (imds.sh). $why is what went wrong.
get() {
	why="$1 can't be had from the bucket yet"
	code=$(printf 'user = "%s:%s"\nheader = "x-amz-security-token: %s"\nheader = "x-amz-content-sha256: %s"\nheader = "x-amz-expected-bucket-owner: %s"\n' \
		"$key" "$secret" "$session" e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 "$account" |
		curl -s -m "${3:-60}" -K - --aws-sigv4 "aws:amz:$region:s3" -o "$2" -w '%{http_code}' "$bucket/$1") || code="$code, curl $?"
	[ "$code" = 200 ] && return
	why="$why (HTTP $code)"
	return 1
}
checked() {
	why="node/node.sh is not the one that node/manifest names"
	want=$(sed -n 's/^\([0-9a-f]\{64\}\)  node\/node\.sh$/\1/p' "$dir/manifest")
	have=$(sha256sum < "$dir/node.sh")
	[ -n "$want" ] && [ "${have%% *}" = "$want" ]
}

begun=$(date +%s)
pause=1
until login && get node/manifest "$dir/manifest" && get node/node.sh "$dir/node.sh" && checked; do
	rm -f "$dir/node.sh"
	if [ $(($(date +%s) - begun)) -ge "$patience" ]; then
		# Whoever waits for it reads that. Nobody may: what it lacks can come when nobody looks.
		say "gave up after $patience s: $why"
		pause=60
	fi
	say "$why; trying again in $pause s"
	sleep "$pause"
	[ "$pause" -ge 8 ] || pause=$((pause * 2))
done
unset token json key secret session
say 'running the node script'
exec sh "$dir/node.sh" "$dir"
