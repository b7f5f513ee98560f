# Starts units, restarting those whose files changed since they were started. Arguments: what to do, then the units in order.
#   all       start and restart
#   start     only start what does not run; what is due for a restart is said
#   restart   the restarts that are due
set -eu
mode=$1
shift
[ ! -e /run/kup/daemon-reload ] || { systemctl daemon-reload; rm -f /run/kup/daemon-reload; }
start= restart= due=
for unit; do
  case $(systemctl is-active "$unit" || :) in
    active) [ ! -e "/run/kup/restart/$unit" ] || restart="$restart $unit" ;;
    # It may have read its files before they changed.
    activating | deactivating)
      [ ! -e "/run/kup/restart/$unit" ] || systemctl stop "$unit"
      start="$start $unit"
      ;;
    *) start="$start $unit" ;;
  esac
done
if [ "$mode" = start ]; then due=$restart restart=; fi
if [ -n "$start" ]; then
  systemctl reset-failed $start 2>/dev/null || true
  systemctl start $start
fi
if [ -n "$restart" ]; then systemctl restart $restart; fi
for unit in $start $restart; do rm -f "/run/kup/restart/$unit"; done
printf 'due:%s\nchanged:%s%s\n' "$due" "$start" "$restart"
