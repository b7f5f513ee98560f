# Makes a master's etcd ready for its start. Arguments: what for, and the members as name=url,...
#   new        it forms a cluster with the others
#   existing   it joins one that stands
#   keep       it goes on with the data it has, which is never touched; only what its first start was told is written if it is gone
# Otherwise whatever its data directory holds is removed, unless it is what a start with the very same arguments left behind.
set -eu
environment=/var/lib/kup/etcd.env
state=$1
[ "$state" != keep ] || state=existing
wanted="ETCD_INITIAL_CLUSTER_STATE=$state
ETCD_INITIAL_CLUSTER=$2"
case $1 in
  keep) [ ! -e "$environment" ] || exit 0 ;;
  new) [ "$(cat "$environment" 2>/dev/null)" != "$wanted" ] || exit 0 ;;
esac
mkdir -p "${environment%/*}"
if [ "$1" != keep ]; then
  if [ -e /etc/systemd/system/etcd.service ]; then systemctl stop etcd.service; fi
  rm -rf /var/lib/kup/etcd-formed /var/lib/etcd/member
fi
printf '%s\n' "$wanted" > "$environment.kup-new"
sync "$environment.kup-new"
mv -fT "$environment.kup-new" "$environment"
