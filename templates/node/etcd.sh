# Makes a master's etcd ready for its first start. Arguments: `new` to form a cluster or `existing` to join one, and the
# members as name=url,...
# Whatever its data directory holds is removed, unless it is what a start with the very same arguments left behind.
set -eu
environment=/etc/kup/etcd.env
wanted="ETCD_INITIAL_CLUSTER_STATE=$1
ETCD_INITIAL_CLUSTER=$2"
if [ "$1" = new ] && [ "$(cat "$environment" 2>/dev/null)" = "$wanted" ]; then exit 0; fi
if [ -e /etc/systemd/system/etcd.service ]; then systemctl stop etcd.service; fi
rm -rf /var/lib/kup/etcd-formed /var/lib/etcd/member
printf '%s\n' "$wanted" > "$environment.kup-new"
sync "$environment.kup-new"
mv -fT "$environment.kup-new" "$environment"
