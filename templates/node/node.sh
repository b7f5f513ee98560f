#!/bin/sh
# Makes this machine a minion of its cluster, and keeps it one: gets what node/manifest in the cluster's bucket names, checks it, puts it
# in its place, and starts each unit as soon as what it needs is there. User-data runs it at the first boot, a timer every minute from
# then on; what is done already is not done again. Argument: the directory where `settings` stands, and where this script stays.
set -eu
umask 077
home=$1
imds='http://169.254.169.254'
bundle='{{ bundle }}'
server='https://{{ api_name }}:{{ api_port }}'
authority=/etc/kup/pki/cluster-ca.crt
login=/var/lib/kubelet/pki/kubelet-client-current.pem
# How long what is still to come is waited for, in seconds: the bundle, while a slow line brings it to the bucket; the first API server.
patience=900
# How long a unit that runs may take until it has done its part.
soon=120

setting() { sed -n "s/^$1=//p" "$home/settings" | head -n 1; }
bucket=$(setting bucket)
region=$(setting region)
account=$(setting account)

say() {
	echo "kup: $*"
	{ echo "kup: $*" > /dev/console; } 2> /dev/null || :
}
# What another minute may mend.
later() {
	say "$*"
	exit 1
}
# What somebody has to look at: `kup up` reads these words on the console.
fail() { later "gave up: $*"; }
now() { date +%s; }
{% include "shell/imds.sh" -%}
{% include "shell/bucket.sh" -%}

# --- The unit that this runs as: one at a time, whoever asks, and again every minute.

reload=
# own_unit NAME, its text on stdin.
own_unit() {
	to=/etc/systemd/system/$1
	cat > "$to.kup-new"
	if cmp -s "$to.kup-new" "$to"; then
		rm "$to.kup-new"
		return
	fi
	chmod 644 "$to.kup-new"
	mv -f "$to.kup-new" "$to"
	reload=yes
}
own_unit kup-node.service << 'END'
[Unit]
Description=kup: makes this machine a minion of its cluster, and keeps it one
After=network-online.target

[Service]
Type=oneshot
Environment=KUP_UNIT=yes
ExecStart=/bin/sh /var/lib/kup/boot/node.sh /var/lib/kup/boot
TimeoutStartSec=3600
END
own_unit kup-node.timer << 'END'
[Unit]
Description=kup: follows what the cluster's bucket says of minions

[Timer]
OnActiveSec=60
OnUnitInactiveSec=60
RandomizedDelaySec=15
AccuracySec=1

[Install]
WantedBy=timers.target
END
if [ -n "$reload" ]; then
	(umask 022 && mkdir -p /etc/systemd/system/timers.target.wants)
	ln -sf /etc/systemd/system/kup-node.timer /etc/systemd/system/timers.target.wants/kup-node.timer
	systemctl daemon-reload
fi
if [ -z "${KUP_UNIT-}" ]; then
	# First, so that what passes is tried again whatever comes of the first time.
	systemctl start --no-block kup-node.timer
	exec systemctl start kup-node.service
fi

# --- What the manifest names.

[ "$(uname -m)" = '{{ machine }}' ] || fail "this machine is $(uname -m), but the cluster's bundle is for {{ machine }}"
for program in nft ip modprobe sysctl; do
	command -v "$program" > /dev/null || fail "this machine's image has no $program, which a node needs"
done
work=$home/work
rm -rf "$work"
mkdir -p "$work"
jobs=
# Whatever it was doing ends with it.
trap 'code=$?; trap - EXIT; kill $jobs 2> /dev/null || :; rm -rf "$work" || :; exit "$code"' EXIT
trap 'exit 1' HUP INT TERM

sum() { sha256sum | cut -d' ' -f1; }
# is SUM FILE
is() { [ "$(sum < "$2")" = "$1" ]; }
# named OBJECT: the sum that the manifest gives for it.
named() { sed -n "s|^\([0-9a-f]\{64\}\)  $1\$|\1|p" "$work/manifest"; }
# patiently OBJECT FILE: as get, while it may still come.
patiently() {
	until=$(($(now) + patience)) pause=1
	until get "$1" "$2" 300; do
		[ "$(now)" -lt "$until" ] || return 1
		[ "$pause" != 4 ] || say "$why; waiting for it"
		sleep "$pause"
		[ "$pause" -ge 15 ] || pause=$((pause * 2))
		# A role may be given another login meanwhile.
		login || :
	done
}

login || later "$why"
get node/manifest "$work/manifest" || later "$why"
shape='[0-9a-f]{64}  node/(node\.sh|files\.tar\.gz|images)|([0-9a-f]{64})  bundle/\2\.gz  0[0-7]{3} (bin|cni|images)/[A-Za-z0-9][A-Za-z0-9._-]*'
odd=$(grep -vxE "$shape" "$work/manifest" | head -n 1 || :)
[ -z "$odd" ] || fail "node/manifest has a line that this script does not know: $odd"
want=$(named 'node/node\.sh')
files=$(named 'node/files\.tar\.gz')
[ -n "$want" ] && [ -n "$files" ] || fail 'node/manifest does not name what it should'
if ! is "$want" "$home/node.sh"; then
	# Whoever writes both writes the manifest last.
	get node/node.sh "$work/node.sh" || later "$why"
	is "$want" "$work/node.sh" || later 'node/node.sh is not the one that node/manifest names'
	mv -f "$work/node.sh" "$home/node.sh"
	say 'the node script is another one now: running that'
	exec sh "$home/node.sh" "$home"
fi
grep '  bundle/' "$work/manifest" > "$work/bundle" || fail 'node/manifest names no bundle'

# The bundle that this machine has, once it has all of it. Another one comes with another machine: pods would notice the change.
stays=
if [ -e "$home/bundle" ] && ! cmp -s "$home/bundle" "$work/bundle"; then
	stays=yes
	cmp -s "$home/stays" "$work/bundle" || say 'the cluster has another bundle by now: this machine keeps its own until it is replaced'
	cp "$work/bundle" "$home/stays"
fi

# What it has, or is to have.
has=$work/bundle
[ ! -e "$home/bundle" ] || has=$home/bundle

# bring SUM OBJECT MODE PATH LINE: makes that file of the bundle be there.
bring() {
	to=$bundle/$4 new=$bundle/.$5
	# One that an earlier run has brought.
	if [ -e "$to" ] && is "$1" "$to"; then return; fi
	patiently "$2" "$new.gz" || return 1
	why="$2 in the bucket is not what node/manifest names: $4 is refused"
	if said=$(gzip -dc < "$new.gz" 2>&1 > "$new") && is "$1" "$new"; then
		why="$to could not be written"
		rm "$new.gz" && chmod "$3" "$new" && mv -f "$new" "$to"
		return
	fi
	case $said in *'No space'*) why="$to could not be written: there is no space left" ;; esac
	rm -f "$new" "$new.gz"
	return 1
}
# Brings what nobody has begun to bring yet, in the manifest's order.
worker() {
	line=0
	while read -r sum object mode path; do
		# Two files may have the same content.
		line=$((line + 1))
		mkdir "$work/begun.$line" 2> /dev/null || continue
		bring "$sum" "$object" "$mode" "$path" "$line" || {
			echo "$why" > "$work/failed"
			return 1
		}
	done < "$work/bundle"
}
none_failed() { [ ! -s "$work/failed" ] || fail "$(head -n 1 "$work/failed")"; }
# await PATH...: until the workers have brought these.
await() {
	for path; do
		until [ -e "$bundle/$path" ]; do
			[ -n "$brings" ] && grep -q " $path\$" "$has" || fail "this machine's bundle lacks $path"
			none_failed
			sleep 0.05
		done
	done
}
brings=
if [ -z "$stays" ] && [ ! -e "$home/bundle" ]; then
	(umask 022 && mkdir -p "$bundle/bin" "$bundle/cni" "$bundle/images")
	# As many as keep two processors and the line busy.
	for _ in 1 2 3 4; do
		worker &
		brings="$brings $!"
	done
	jobs=$brings
fi

# --- This machine's files.

if [ "$(cat "$home/files" 2> /dev/null)" != "$files" ]; then
	patiently node/files.tar.gz "$work/files.tar.gz" || fail "$why"
	is "$files" "$work/files.tar.gz" || later 'node/files.tar.gz is not the one that node/manifest names'
	mkdir "$work/files"
	tar -xzpf "$work/files.tar.gz" -C "$work/files" --no-same-owner
	cp "$home/settings" "$work/files/settings"
	{
		why='the metadata service does not say who this machine is'
		name=$(md instance-id) && address=$(md local-ipv4) && zone=$(md placement/availability-zone) || later "$why"
		printf 'name=%s\naddress=%s\nprovider_id=aws:///%s/%s\n' "$name" "$address" "$zone" "$name"
	} > "$work/identity"
	cp "$work/identity" "$work/files/identity"
	# The rest may be of the other bundle, if it is not that of this machine.
	lasting='/etc/kup/hosts\.sh|/etc/kup/pki/cluster-ca\.crt|/etc/kup/[a-z]*\.kubeconfig|/etc/containerd/certs\.d/.*'
	(
		cd "$work/files" && sh ./inspect.sh > facts && sh ./own.sh &&
			{ [ -z "$stays" ] || { grep -E " ($lasting)\$" list > some && mv some list; }; } &&
			sh ./place.sh && sh ./prune.sh
	) > "$work/changed" 2> "$work/said" || {
		head -n 5 "$work/said" | while read -r line; do say "$line"; done
		fail "this machine's files could not be placed"
	}
	[ ! -e "$home/joined" ] || while read -r path; do say "changed: $path"; done < "$work/changed"
	mv -f "$work/identity" "$home/identity"
	echo "$files" > "$home/files"
fi
name=$(sed -n 's/^name=//p' "$home/identity")

# --- Its units.

# Scripts of their own: what fails in them ends them, wherever they are called.
cat > "$work/units.sh" << 'KUP'
{{ units }}
KUP
cat > "$work/range.sh" << 'KUP'
{{ range }}
KUP
# words UNIT...: what they said last.
words() {
	for unit; do
		say "$unit is $(systemctl is-active "$unit" || :); its last words:"
		journalctl -q -u "$unit" -n 8 --no-pager -o cat | cut -c1-300 | while read -r line; do say "  $line"; done
	done
}
# start UNIT...: in order, restarting those whose files changed.
start() {
	sh "$work/units.sh" all "$@" > /dev/null 2> "$work/said.$1" && return
	head -n 3 "$work/said.$1" | while read -r line; do say "$line"; done
	for unit; do
		systemctl -q is-active "$unit" || words "$unit"
	done
	fail "a unit of these did not start: $*"
}
# within SECONDS WHAT UNIT COMMAND...: until the command succeeds; else says what was waited for, and what the unit says.
within() {
	until=$(($(now) + $1)) tell=$(($(now) + 10)) what=$2 unit=$3 last=
	shift 3
	until "$@"; do
		if [ "$(now)" -ge "$until" ]; then
			[ "$unit" = - ] || words "$unit"
			fail "$what did not come: ${last:-no more is known}"
		fi
		if [ "$(now)" -ge "$tell" ]; then
			[ "$unit" = - ] || last=$(journalctl -q -u "$unit" -n 1 --no-pager -o cat | cut -c1-300)
			say "waiting for $what (last: ${last:-nothing})"
			tell=$((tell + 60))
		fi
		none_failed
		sleep 0.1
	done
}
ready() {
	last=$(curl -sS -m 3 --cacert "$authority" -o /dev/null -w 'HTTP %{http_code}' "$server/readyz" 2>&1) && [ "$last" = 'HTTP 200' ] && return
	sleep 0.2
	return 1
}
has_login() { [ -s "$login" ]; }
# own_node [CURL-ARGUMENTS...]: this machine's own Node, by its own login.
own_node() {
	last=$(curl -sS -m 5 --cacert "$authority" --cert "$login" --key "$login" -o "$work/node" -w 'HTTP %{http_code}' \
		"$@" "$server/api/v1/nodes/$name" 2>&1) && [ "$last" = 'HTTP 200' ]
}
has_range() {
	own_node || return 1
	RANGE=$(sed -n 's/.*"podCIDR": *"\([0-9./]*\)".*/\1/p' "$work/node" | head -n 1)
	last='the Node has none'
	[ -n "$RANGE" ]
}

start kup-host.service kup-hosts.service
[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] ||
	fail "this machine's kernel can't filter bridged packets, which Services need: it has no br_netfilter"
await bin/containerd bin/containerd-shim-runc-v2 bin/runc
start containerd.service
images=$(sed -n 's|^.* \(images/.*\)$|\1|p' "$has")
{
	await bin/ctr $images
	start kup-images.service
} &
unpacking=$!
jobs="$jobs $unpacking"

await bin/kubelet
if ! systemctl -q is-active kubelet.service; then
	# A client that is started before the API answers backs off.
	within "$patience" "the cluster's API at $server" - ready
elif has_login && ! own_node; then
	if [ "$last" = 'HTTP 404' ]; then
		# Somebody has deleted the Node, and a kubelet registers once.
		mkdir -p /run/kup/restart
		: > /run/kup/restart/kubelet.service
	elif [ -e "$home/joined" ]; then
		# An API that does not answer is not this machine's to mend.
		start kubelet.service kube-proxy.service flanneld.service
		exit 0
	fi
fi
start kubelet.service
within "$soon" 'the certificate that the kubelet asks for' kubelet.service has_login
within "$soon" 'the Node' kubelet.service own_node
await bin/kube-proxy
start kube-proxy.service
within "$soon" "the range of this machine's pods" kubelet.service has_range
RANGE=$RANGE PEERS='' sh "$work/range.sh"
await bin/flanneld $(sed -n 's|^.* \(cni/.*\)$|\1|p' "$has")
wait "$unpacking" || exit 1
start flanneld.service

# By this, whoever logs in to the machine knows it.
for key in /etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/ssh_host_ecdsa_key.pub; do
	[ -e "$key" ] || continue
	key=$(cut -d' ' -f1,2 "$key")
	grep -q "\"kup.dev/ssh-host-key\": *\"$key\"" "$work/node" && break
	printf '{"metadata":{"annotations":{"kup.dev/ssh-host-key":"%s"}}}' "$key" > "$work/patch"
	own_node -X PATCH -H 'Content-Type: application/merge-patch+json' --data-binary "@$work/patch" ||
		later "this machine's SSH host key could not be published ($last)"
	break
done
if [ ! -e "$home/joined" ]; then
	say "this machine is the node $name, $(($(now) - $(stat -c %Y "$home/settings"))) s after it was told to be one"
	: > "$home/joined"
fi

# --- What nobody waits for.

for job in $brings; do
	wait "$job" || fail "$(head -n 1 "$work/failed")"
done
start systemd-journald.service
if [ -z "$stays" ] && [ ! -e "$home/bundle" ]; then
	# From here on it counts as whole, also after a loss of power.
	sync
	mv -f "$work/bundle" "$home/bundle"
fi
# What somebody loaded onto all nodes.
loaded=$(named node/images)
if [ -n "$loaded" ] && [ "$(cat "$home/loaded" 2> /dev/null)" != "$loaded" ]; then
	patiently node/images "$work/loaded" || fail "$why"
	is "$loaded" "$work/loaded" || later 'node/images is not the one that node/manifest names'
	while read -r sum object names; do
		! grep -qx "$sum" "$home/images" 2> /dev/null || continue
		patiently "$object" "$work/image.gz" || fail "$why"
		gzip -dc < "$work/image.gz" > "$work/image" && is "$sum" "$work/image" || fail "$object in the bucket is not what node/images names"
		"$bundle/bin/ctr" --namespace k8s.io images import "$work/image" > /dev/null || fail "the images $names could not be imported"
		echo "$sum" >> "$home/images"
		say "loaded the images $names"
	done < "$work/loaded"
	echo "$loaded" > "$home/loaded"
fi
