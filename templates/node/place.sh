# Puts files in their places. Runs in the directory that kup's archive was unpacked in: `root/` holds the files with their final
# modes, `sums` their SHA-256, `list` one line a file: mode, kind (`keep` or `seed`), units to restart (comma-separated or `-`), path.
# What is there already and equal is left alone; what differs is written beside, synced and renamed, and the units it concerns are
# marked, so that a restart that was due is not forgotten if kup is killed in between. Prints the paths it changed.
set -eu
marks=/run/kup/restart
mkdir -p "$marks"
# Paths that are missing or differ, in contents or in mode. A process for each file would take longer than all the rest.
cut -d' ' -f4- list > all
xargs stat -c '%a %n' < all > there 2> /dev/null || true
differ=$(sha256sum -c --quiet sums 2> /dev/null | sed -n 's/: FAILED.*$//p'; cut -d' ' -f1,4- list | grep -vxFf there | cut -d' ' -f2-) || true
while read -r mode kind units path; do
  [ "$kind" != seed ] || [ ! -e "$path" ] || continue
  case "
$differ
" in *"
$path
"*) printf '%s %s\n' "$units" "$path" ;; esac
done < list > due
[ -s due ] || exit 0
cut -d' ' -f2- due | sed 's|^/||' > paths
sed 's|/[^/]*$||; s|^|/|' paths | sort -u | xargs mkdir -p
tar -C root -cf - --transform 's|$|.kup-new|' -T paths | tar -C / -xpf - --no-same-owner
sed 's|^\(.*\)$|/\1.kup-new|' paths | xargs sync
while read -r units path; do
  mv -fT "$path.kup-new" "$path"
  case $path in /etc/systemd/system/*) : > /run/kup/daemon-reload ;; esac
  for unit in $(printf '%s' "$units" | tr , ' '); do
    [ "$unit" = - ] || : > "$marks/$unit"
  done
  printf '%s\n' "$path"
done < due
# Units that start at boot: the symbolic link that `systemctl enable` would make, without its reload.
mkdir -p /etc/systemd/system/multi-user.target.wants
while read -r mode kind units path; do
  case $path in
    /etc/systemd/system/*.service)
      link=/etc/systemd/system/multi-user.target.wants/${path##*/}
      [ -L "$link" ] || ln -s "$path" "$link" ;;
  esac
done < list
