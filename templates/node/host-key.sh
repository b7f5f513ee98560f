# A master's SSH host keys. It boots with a throw-away one that its user-data told; here it makes one of its own, which never leaves it.
#   offer   makes it, serves it beside the throw-away one, and says its public half
#   keep    serves it alone, and forgets the throw-away one
# They are of different types, and a login asks for one type: so at no moment is there a machine that nobody knows.
set -eu
own=/etc/ssh/kup_host_ecdsa_key
serve() {
  conf=/etc/ssh/sshd_config.d/00-kup.conf
  mkdir -p "${conf%/*}"
  printf 'HostKey %s\n' "$@" > "$conf.new"
  ! cmp -s "$conf.new" "$conf" || { rm "$conf.new"; return 0; }
  mv -f "$conf.new" "$conf"
  systemctl reload ssh.service 2>/dev/null || systemctl reload sshd.service 2>/dev/null || systemctl restart ssh.service
}
case $1 in
  offer)
    if [ ! -s "$own" ]; then
      rm -f "$own.new" "$own.new.pub"
      ssh-keygen -q -t ecdsa -b 256 -N '' -C '' -f "$own.new"
      sync "$own.new" "$own.new.pub"
      mv -f "$own.new.pub" "$own.pub"
      mv -f "$own.new" "$own"
    fi
    serve "$own" /etc/ssh/ssh_host_ed25519_key
    cat "$own.pub"
    ;;
  keep)
    serve "$own"
    rm -f /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_ed25519_key.pub
    ;;
esac
