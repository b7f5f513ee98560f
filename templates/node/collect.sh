# Gathers what explains a machine's behaviour into a compressed archive on standard output. Arguments: how far back ("" for all),
# then the units. What is taken is listed here and nothing else is; kup takes keys and tokens out of it besides. The last bytes of what
# is long: 16 MiB of a journal, 1 MiB of a container's log.
set -u
umask 077
since=$1
shift
dir=$(mktemp -d /var/tmp/kup-logs.XXXXXX) || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
mkdir journal system pods

journal() { journalctl -q --no-pager --utc -o short-iso-precise ${since:+"--since=-$since"} "$@" | tail -c 16777216; }
for unit; do journal -u "$unit" > "journal/${unit%.service}.log"; done
journal -p warning > journal/warnings-of-all.log

find /var/log/pods -type f -name '*.log' 2> /dev/null | while read -r file; do
  to=${file#/var/log/}
  mkdir -p "${to%/*}" && tail -c 1048576 "$file" > "$to"
done

# No *.key, *.kubeconfig, encryption.yaml or registry logins.
for file in /etc/kup/*.sh /etc/kup/flannel.json /etc/kup/haproxy.cfg /etc/kup/kubelet.yaml /etc/kup/kube-proxy.yaml /etc/kup/audit-policy.yaml \
  /etc/kup/authentication.yaml /etc/kup/pki/*.crt /etc/containerd/config.toml /etc/crictl.yaml /etc/cni/net.d/*.conflist \
  /etc/modules-load.d/kup.conf /etc/sysctl.d/90-kup.conf /etc/systemd/journald.conf.d/kup.conf \
  /etc/systemd/networkd.conf.d/kup.conf /etc/hosts /etc/resolv.conf /etc/os-release /run/flannel/subnet.env; do
  [ ! -f "$file" ] || cp -L --parents "$file" .
done
for unit; do
  [ ! -f "/etc/systemd/system/$unit" ] || cp -L --parents "/etc/systemd/system/$unit" .
done

say() {
  name=$1
  shift
  timeout 10 "$@" 2>&1 | tail -c 4194304 > "system/$name.txt"
}
say uname uname -a
say uptime uptime
say memory cat /proc/meminfo
say disks df -h
say inodes df -i
say mounts cat /proc/mounts
say addresses ip -d addr
say routes ip route
say listening ss -tuln
say units systemctl list-units --all --no-pager --plain
# Names only: arguments of users' programs may hold what is secret.
say processes ps -eo pid,ppid,user,rss,stat,etime,comm
say nftables nft list ruleset
say conntrack cat /proc/sys/net/netfilter/nf_conntrack_count
for what in ps\ -a pods images; do say "crictl-${what%% *}" /opt/kup/bundle/bin/crictl $what; done

# The proof that this ran to its end is the archive's last member.
: > end
tar -cf - journal system pods $([ -d etc ] && echo etc) $([ -d run ] && echo run) end | gzip -1
