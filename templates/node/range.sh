# A Node that was deleted and has come back has another range for its pods, and flannel reads that only once: it is due for a restart
# then, and sets up the rest anew (cni.sh). RANGE is the Node's range now.
stale=
if [ -e /run/flannel/subnet.env ] && ! grep -q "^FLANNEL_SUBNET=${RANGE%.*}\." /run/flannel/subnet.env; then stale=yes; fi
# The others' flannel may not have seen it go: where it was deleted and came back while their connection to the API was down, they take
# it for the same. So is one whose route to a peer is not to that peer's range. PEERS has a line for each: its address, its range.
while read -r address range; do
  [ -n "$address" ] || continue
  for there in $(ip -4 route show via "$address" 2>/dev/null | cut -d' ' -f1); do
    [ "$there" != "$range" ] && [ "$there" != default ] || continue
    # Flannel removes no route that it did not make in this life.
    ip -4 route del "$there" via "$address"
    stale=yes
  done
done <<PEERS
$PEERS
PEERS
if [ -n "$stale" ]; then
  mkdir -p /run/kup/restart
  : > /run/kup/restart/flanneld.service
fi
