#!/bin/sh
# What a minion of kup runs first: gets the node script from the cluster's bucket, checks it, and hands over to it.
set -eu
umask 077
imds='http://169.254.169.254'
bucket='{{ bucket }}'
region='{{ region }}'
account='{{ account }}'
dir='/var/lib/kup/boot'
patience=180
mkdir -p "$dir"
cat > "$dir/settings" <<'END'
{{ settings }}
END

say() {
	echo "kup: $*"
	{ echo "kup: $*" > /dev/console; } 2> /dev/null || :
}

{% include "shell/imds.sh" -%}
{% include "shell/bucket.sh" -%}
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
