# A snapshot takes the place of etcd's data on a master. Nothing but `take_place` touches the data that is there, and that is kept until
# `finish`: in member.kup-old. Each part can be done again, also after one that was cut off.

# prepare SHA256 MEMBER URL MEMBERS TOKEN BUMP: the compressed snapshot comes by standard input and becomes the data directory of this TOKEN
# beside the one in use. One that lost its kup may still be at work: so each works in a directory of its own, and TOKENs are all different.
prepare() (
  set -eu
  umask 077
  data=/var/lib/etcd
  mkdir -p "$data"
  cd "$data"
  base=$(pwd -P)
  pid=$(exec sh -c 'echo $PPID')
  rm -rf kup-restore.*
  for old in kup-new.*; do
    [ -e "$old" ] || continue
    case $(readlink "/proc/${old#kup-new.}/cwd" 2>/dev/null) in
      "$base/$old"*) ;;
      *) rm -rf "$old" ;;
    esac
  done
  mkdir "kup-new.$pid"
  cd "kup-new.$pid"
  trap '' PIPE
  trap 'exit 1' HUP TERM
  trap 'cd "$base"; rm -rf "kup-new.$pid"' EXIT
  cat > packed
  echo "$1  packed" | sha256sum -c --status - || { echo "what arrived has another checksum than what was sent" >&2; exit 1; }
  gzip -dc packed > snapshot
  rm packed
  utl=/opt/kup/bundle/bin/etcdutl
  "$utl" snapshot status snapshot > words 2>&1 || { tail -n 3 words >&2; exit 1; }
  "$utl" snapshot restore snapshot --data-dir=data --name="$2" --initial-advertise-peer-urls="$3" --initial-cluster="$4" \
    --initial-cluster-token="$5" --bump-revision="$6" --mark-compacted > words 2>&1 || { tail -n 3 words >&2; exit 1; }
  rm snapshot
  sync
  mv -T data "../kup-restore.$5"
  echo kup-prepared
)

# stop NAME: first all that calls etcd. From now on `kup up` leaves etcd to the restore of the snapshot NAME.
stop() (
  set -eu
  mkdir -p /var/lib/kup
  printf '%s\n' "$1" > /var/lib/kup/etcd-restore.new
  sync /var/lib/kup/etcd-restore.new
  mv -fT /var/lib/kup/etcd-restore.new /var/lib/kup/etcd-restore
  cd /etc/systemd/system
  units=
  for unit in kup-etcd-backup.timer kup-etcd-backup.service *cloud-controller-manager.service node-approver.service \
    kube-scheduler.service kube-controller-manager.service kube-apiserver.service; do
    [ ! -e "$unit" ] || units="$units $unit"
  done
  systemctl stop $units
  echo kup-stopped
)

stop_etcd() (
  set -eu
  systemctl stop etcd.service
  echo kup-stopped
)

# take_place TOKEN. What is kept is what was there before the first try.
take_place() (
  set -eu
  cd /var/lib/etcd
  [ -d "kup-restore.$1/member" ] || { echo "what was made of the snapshot is gone" >&2; exit 1; }
  if [ -e member.kup-old ]; then
    rm -rf member
  elif [ -e member ]; then
    mv -T member member.kup-old
  fi
  mv -T "kup-restore.$1/member" member
  rm -rf "kup-restore.$1"
  : > /var/lib/kup/etcd-formed
  sync
  echo kup-placed
)

# Nodes know things of a time that is no more: what they run looks at everything anew.
forget() (
  set -eu
  mkdir -p /run/kup/restart
  for unit in kubelet flanneld kube-proxy; do : > "/run/kup/restart/$unit.service"; done
  echo kup-marked
)

# A minion that sets itself up does so again, now instead of within a minute.
rejoin() (
  set -eu
  forget > /dev/null
  systemctl start --no-block kup-node.service
  echo kup-rejoining
)

ctl() {
  /opt/kup/bundle/bin/etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kup/pki/etcd-ca.crt --cert=/etc/kup/pki/etcd-server.crt \
    --key=/etc/kup/pki/etcd-server.key "$@"
}

# Who answered for the API and who led when the snapshot was taken is of no meaning now, and would be believed until its time is over.
forget_leaders() (
  set -eu
  ctl del --prefix /registry/masterleases/ > /dev/null
  for name in kube-controller-manager kube-scheduler cloud-controller-manager kup-node-approver; do ctl del "/registry/leases/kube-system/$name" > /dev/null; done
  echo kup-forgotten
)

# Without the key Secrets can't be read, and an API server that can't read them is of no use. Prints what it removed.
drop_secrets() (
  set -eu
  ctl get --prefix /registry/secrets/ --keys-only | sed -n 's|^/registry/secrets/||p'
  ctl del --prefix /registry/secrets/ > /dev/null
  echo kup-dropped
)

finish() (
  set -eu
  rm -rf /var/lib/etcd/member.kup-old /var/lib/etcd/kup-restore.* /var/lib/etcd/kup-new.*
  rm -f /var/lib/kup/etcd-restore
  sync
  echo kup-finished
)
