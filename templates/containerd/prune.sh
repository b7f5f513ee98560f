# Removes what an earlier run wrote for registries that the config no longer names: a login or an authority must not outlive its line
# there. Runs in the directory of kup's archive, whose `list` has one line a file with the path last. A directory is kup's if its
# hosts.toml begins as kup begins it; all others are somebody else's and stay. Prints the paths it removed.
set -eu
drop() {
  if [ -f "$1" ] && ! cut -d' ' -f4- list | grep -qxF "$1"; then
    rm "$1"
    printf '%s\n' "$1"
  fi
}
for hosts in /etc/containerd/certs.d/*/hosts.toml; do
  [ -f "$hosts" ] || continue
  read -r first < "$hosts" || true
  case $first in '# Written by kup '*) ;; *) continue ;; esac
  # It goes last, so that the directory is found again if this is cut off.
  for file in "${hosts%/*}"/*; do
    [ "$file" = "$hosts" ] || drop "$file"
  done
  drop "$hosts"
  rmdir "${hosts%/*}" 2> /dev/null || true
done
