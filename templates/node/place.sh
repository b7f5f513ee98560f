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
# A name of this process's own: one that lost its kup may still be at work, and must not rename what this one has half written. What
# such a one left is removed; its own renames then fail, and it ends.
new=.kup-new.$$
while read -r path; do rm -f "/$path.kup-new" "/$path".kup-new.*; done < paths
tar -C root -cf - --transform "s|\$|$new|" -T paths | tar -C / -xpf - --no-same-owner
sed "s|^\(.*\)\$|/\1$new|" paths | xargs sync
while read -r units path; do
  # Marked first: one restart too many does no harm, one that was forgotten does.
  case $path in /etc/systemd/system/*) : > /run/kup/daemon-reload ;; esac
  for unit in $(printf '%s' "$units" | tr , ' '); do
    [ "$unit" = - ] || : > "$marks/$unit"
  done
  mv -fT "$path$new" "$path"
  printf '%s\n' "$path"
done < due
# Units that start at boot, by something that they name: the symbolic link that `systemctl enable` would make, without its reload.
while read -r mode kind units path; do
  case $path in
    /etc/systemd/system/*.service | /etc/systemd/system/*.timer)
      target=$(sed -n 's/^WantedBy=//p' "$path")
      [ -n "$target" ] || continue
      mkdir -p "/etc/systemd/system/$target.wants"
      link=/etc/systemd/system/$target.wants/${path##*/}
      [ -L "$link" ] || ln -s "$path" "$link" ;;
  esac
done < list
