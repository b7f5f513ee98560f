# A Node that was deleted and has registered again may have been given another range for its pods. Then flannel and the bridge are
# set up anew, and the pods, whose addresses nobody routes any more, are started afresh. RANGE is the Node's range now.
if [ -e /run/flannel/subnet.env ] && ! grep -q "^FLANNEL_SUBNET=${RANGE%.*}\." /run/flannel/subnet.env; then
  rm -f /run/flannel/subnet.env
  ! systemctl -q is-active flanneld.service || systemctl restart flanneld.service
  ip link delete cni0 2>/dev/null || true
  /opt/kup/bundle/bin/crictl rmp -f -a >/dev/null 2>&1 || true
fi
