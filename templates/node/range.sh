# A Node that was deleted and has come back has another range for its pods, and flannel reads that only once: it is due for a restart
# then, and sets up the rest anew (cni.sh). RANGE is the Node's range now.
if [ -e /run/flannel/subnet.env ] && ! grep -q "^FLANNEL_SUBNET=${RANGE%.*}\." /run/flannel/subnet.env; then
  mkdir -p /run/kup/restart
  : > /run/kup/restart/flanneld.service
fi
