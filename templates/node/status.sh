# Says how a machine is, in lines that begin with what they are about. Arguments: the units it should have. Reads only.
set -u
printf 'now %s\n' "$(date +%s)"
systemctl show --timestamp=unix -p Id,LoadState,ActiveState,SubState,Result,NRestarts,ActiveEnterTimestamp "$@" | sed 's/^/unit /'
for unit; do
  systemctl -q is-active "$unit" || journalctl -q -u "$unit" -n 3 --no-pager -o cat | sed "s/^/journal $unit /"
done
df -Pk / /var 2>/dev/null | sed '1d' | sort -u | while read -r _ _ used available _ mount; do
  printf 'disk %s %s %s\n' "$used" "$available" "$mount"
done
# Certificates only: the kubelet keeps its key in the same file.
for file in /etc/kup/pki/*.crt /var/lib/kubelet/pki/kubelet-client-current.pem; do
  [ -r "$file" ] && sed -n "/-BEGIN CERTIFICATE-/,/-END CERTIFICATE-/s|^|cert $file |p" "$file"
done
# What runs may still not answer: each is asked by its own health check, all at once.
ask() {
  systemctl -q is-active "$1" || return 0
  printf 'health %s %s\n' "$1" "$(curl -s -m 4 --cacert /etc/kup/pki/cluster-ca.crt -o /dev/null -w '%{http_code}' "$2")"
}
if command -v curl > /dev/null; then
  for unit; do
    case $unit in
      etcd.service) ask "$unit" http://127.0.0.1:2381/health & ;;
      kube-controller-manager.service) ask "$unit" https://127.0.0.1:10257/healthz & ;;
      kube-scheduler.service) ask "$unit" https://127.0.0.1:10259/healthz & ;;
      aws-cloud-controller-manager.service) ask "$unit" https://127.0.0.1:10258/healthz & ;;
      node-approver.service) ask "$unit" http://127.0.0.1:10271/healthz & ;;
      kubelet.service) ask "$unit" http://127.0.0.1:10248/healthz & ;;
      kube-proxy.service) ask "$unit" http://127.0.0.1:10256/livez & ;;
      flanneld.service) ask "$unit" http://127.0.0.1:8471/healthz & ;;
    esac
  done
  wait
fi
# etcd's members as a majority knows them, and what this one says of itself.
if systemctl -q is-active etcd.service; then
  etcdctl() {
    /opt/kup/bundle/bin/etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kup/pki/etcd-ca.crt --cert=/etc/kup/pki/etcd-server.crt \
      --key=/etc/kup/pki/etcd-server.key --dial-timeout=2s --command-timeout=4s --write-out=json "$@" 2>/dev/null
  }
  members=$(etcdctl member list) && printf 'members %s\n' "$members" &
  own=$(etcdctl endpoint status) && printf 'member %s\n' "$own" &
  wait
fi
# A master's own snapshots, and a restore that was begun and has not ended.
if systemctl -q is-failed kup-etcd-backup.service; then
  journalctl -q -u kup-etcd-backup.service -n 3 --no-pager -o cat | sed 's/^/backup /'
fi
[ ! -s /var/lib/kup/etcd-restore ] || sed 's/^/restoring /' /var/lib/kup/etcd-restore
# The proof that this ran to its end.
echo end
