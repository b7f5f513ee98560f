# Says what may keep units from working, in lines that begin with what they are about. Reads only.
# Arguments: how many seconds of the journal count; `api` or `-`, whether the cluster's API should answer this machine; the units.
set -u
since=$1 api=$2
shift 2
printf 'now %s\n' "$(date +%s)"
systemctl show --timestamp=unix -p Id,ActiveState,SubState,Result,NRestarts,ExecMainStatus,ActiveEnterTimestamp "$@" | sed 's/^/unit /'
for unit; do
  said=$(journalctl -q -u "$unit" --since="-${since}s" -n 400 --no-pager -o cat 2>/dev/null | cut -c1-800)
  printf '%s\n' "$said" | tail -n 15 | sed "s/^/journal $unit /"
  # What names a cause may have been said before the last lines.
  printf '%s\n' "$said" | grep -iE 'x509:|no space left|address already in use|sandbox image|failed to pull|ErrImage|connection refused|i/o timeout|no route to host|Unauthorized' |
    tail -n 8 | sed "s/^/telling $unit /"
done
for dir in / /var /var/lib/kubelet /var/lib/etcd /var/lib/containerd /etc/kup /run; do
  df -Pk "$dir" 2>/dev/null | sed '1d'
done | sort -u | while read -r _ size _ free _ mount; do
  # What can't be written can't be full.
  grep -q "^[^ ]* $mount [^ ]* ro[, ]" /proc/mounts || printf 'disk %s %s %s\n' "$size" "$free" "$mount"
done
# Certificates only: the kubelet keeps its key in the same file.
for file in /etc/kup/pki/*.crt /var/lib/kubelet/pki/kubelet-client-current.pem; do
  [ -r "$file" ] && sed -n "/-BEGIN CERTIFICATE-/,/-END CERTIFICATE-/s|^|cert $file |p" "$file"
done
command -v ss > /dev/null && ss -Hltnp 2>/dev/null | while read -r _ _ _ local _ who; do printf 'listen %s %s\n' "$local" "$who"; done
if [ "$api" = api ] && command -v curl > /dev/null; then
  login=/var/lib/kubelet/pki/kubelet-client-current.pem
  [ -r "$login" ] && set -- --cert "$login" --key "$login" || set --
  # With the kubelet's own login, as the kubelet does it: the exit code says whether it came through, the status what was said.
  said=$(curl -sS -m 5 --cacert /etc/kup/pki/cluster-ca.crt "$@" -o /dev/null -w '%{http_code}' https://{{ api_name }}:{{ api_port }}/readyz 2>&1)
  printf 'api %s %s\n' "$?" "$(printf '%s' "$said" | tr '\n' ' ')"
fi
# The proof that this ran to its end.
echo end
