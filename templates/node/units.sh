# Starts units, restarting those whose files changed since they were started. Arguments: the units, in order.
set -eu
[ ! -e /run/kup/daemon-reload ] || { systemctl daemon-reload; rm -f /run/kup/daemon-reload; }
start= restart= active=
for unit; do
  if [ -e "/run/kup/restart/$unit" ]; then restart="$restart $unit"; else start="$start $unit"; fi
done
for unit in $start; do
  systemctl -q is-active "$unit" || active="$active $unit"
done
if [ -n "$active" ]; then systemctl reset-failed $active 2>/dev/null || true; systemctl start $active; fi
if [ -n "$restart" ]; then
  systemctl restart $restart
  for unit in $restart; do rm -f "/run/kup/restart/$unit"; done
fi
printf 'changed:%s%s\n' "$active" "$restart"
