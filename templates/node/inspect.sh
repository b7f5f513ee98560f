# What kup wants to know of a machine, as key=value lines. Reads only.
set -u
say() { printf '%s=%s\n' "$1" "$2"; }
say kernel "$(uname -r)"
say arch "$(uname -m)"
say cpus "$(nproc)"
say memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then say cgroup 2; else say cgroup 1; fi
# Bit 24 of the bounding set is CAP_SYS_RESOURCE.
bounding=$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)
if [ $(( 0x$bounding >> 24 & 1 )) = 1 ]; then say cap_sys_resource yes; else say cap_sys_resource no; fi
if [ -e /run/systemd/resolve/resolv.conf ] && grep -q '^nameserver 127\.0\.0\.53' /etc/resolv.conf; then
  say resolver /run/systemd/resolve/resolv.conf
else
  say resolver /etc/resolv.conf
fi
if systemd-detect-virt -q --container; then say container yes; else say container no; fi
say interface "$(ip -o -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p')"
say bridge_nf "$([ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] && echo yes || echo no)"
# The mark is made by etcd's own unit, the first time that it is ready. Data of whose first start nothing is known is somebody's data.
if [ ! -d /var/lib/etcd/member ]; then
  say etcd none
elif [ -e /var/lib/kup/etcd-formed ] || [ ! -e /var/lib/kup/etcd.env ]; then
  say etcd formed
else
  say etcd begun
fi
# The snapshot whose restore was begun and has not ended.
say restoring "$(cat /var/lib/kup/etcd-restore 2>/dev/null)"
