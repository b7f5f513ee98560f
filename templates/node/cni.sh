# Turns the subnet that flannel was given into the configuration of the reference CNI plugins. FLANNEL_SUBNET is the gateway's
# address (10.244.1.1/24); host-local wants the network's (10.244.1.0/24), and a node's range is always a /24 of the pods' range.
set -eu
. /run/flannel/subnet.env
network="${FLANNEL_SUBNET%.*}.0/24"
mkdir -p /etc/cni/net.d
cat > /etc/cni/net.d/.10-kup.conflist <<JSON
{
  "cniVersion": "1.0.0",
  "name": "kup",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isDefaultGateway": true,
      "hairpinMode": true,
      "ipMasq": false,
      "mtu": $FLANNEL_MTU,
      "ipam": { "type": "host-local", "ranges": [[{ "subnet": "$network" }]], "dataDir": "/var/lib/cni/networks" }
    },
    { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true, "backend": "nftables" }
  ]
}
JSON
# One rename: the runtime never reads half of it.
mv -f /etc/cni/net.d/.10-kup.conflist /etc/cni/net.d/10-kup.conflist
# A Node that was deleted and has come back has another range. What stands in the old one can't be reached any more: the bridge goes,
# and the pods' sandboxes, which the kubelet then makes anew. Without that the bridge plugin would refuse every new pod.
old=$(ip -4 -o addr show dev cni0 2>/dev/null | sed -n 's/.* inet \([^ ]*\) .*/\1/p')
if [ -n "$old" ] && [ "$old" != "$FLANNEL_SUBNET" ]; then
  ip link delete cni0
  # One file for each address in use; its first line is the sandbox.
  for file in "/var/lib/cni/networks/kup/${old%.*}".*; do
    [ -f "$file" ] || continue
    {{ bundle }}/bin/ctr -n k8s.io tasks kill -s KILL "$(head -n 1 "$file" | tr -d '\r')" || rm -f "$file"
  done
fi
