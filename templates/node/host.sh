# Kernel modules and settings that kubeadm's documentation asks of a node. In a container the host's kernel may have them built
# in, or not allow a change that is already made: what counts is the value that stands in the end, and kup checks that.
set -u
while read -r module; do
  [ -n "$module" ] && modprobe -q "$module" 2>/dev/null || true
done < /etc/modules-load.d/kup.conf
sysctl -q -e -p /etc/sysctl.d/90-kup.conf 2>/dev/null || true
mount --make-rshared /
# Certificates and etcd want a right clock. A container has its host's; a machine that keeps none gets systemd's own client.
if ! systemd-detect-virt -q --container && ! systemctl -q is-active chrony chronyd ntp ntpsec systemd-timesyncd; then
  systemctl enable --now systemd-timesyncd
fi
