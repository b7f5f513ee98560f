# Mounts the volume that etcd's data is on, and gives it a file system if it never had one. Argument: the volume's id.
# Run by kup at its first look at a master, and at each boot before etcd.
set -eu
id=$1 dir=/var/lib/etcd
fail() {
  echo "$*" >&2
  exit 1
}
# On today's machines the kernel numbers disks as it finds them, and only a disk's serial number, which is the volume's id without its
# hyphen, says which is which; on older ones it has the name it was attached by, in the kernel's spelling.
serial=$(printf '%s' "$id" | tr -d -)
find_device() {
  for device in "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$serial" /dev/xvdf /dev/sdf; do
    [ ! -b "$device" ] || { readlink -f "$device"; return 0; }
  done
  for disk in /sys/block/nvme*; do
    [ ! -r "$disk/device/serial" ] || [ "$(tr -d ' ' < "$disk/device/serial")" != "$serial" ] || [ ! -b "/dev/${disk##*/}" ] ||
      { echo "/dev/${disk##*/}"; return 0; }
  done
  return 1
}
# AWS says that it is attached before the machine's kernel has seen it.
tries=0
until device=$(find_device); do
  tries=$((tries + 1))
  [ "$tries" -lt 300 ] || fail "the volume $id, which etcd's data is on, has not appeared on this machine within 60 s"
  sleep 0.2
done
mkdir -p "$dir"
if mountpoint -q "$dir"; then
  mounted=$(findmnt -n -o SOURCE --target "$dir")
  [ "$(readlink -f "$mounted")" = "$device" ] || fail "$dir is on $mounted, and not on $device, the volume $id"
  exit 0
fi
[ ! -e "$dir/member" ] || fail "$dir holds data already that is not on the volume $id"
# The label says that making the file system came to its end.
label=$(blkid -p -s LABEL -o value "$device") || [ $? = 2 ] || fail "what is on the volume $id can't be told"
type=$(blkid -p -s TYPE -o value "$device") || :
case $type/$label in
  ext4/kup-etcd) ;;
  / | ext4/kup-making)
    mkfs.ext4 -q -F -m 0 -L kup-making "$device"
    e2label "$device" kup-etcd
    ;;
  *) fail "the volume $id holds a $type file system that kup did not make; it stays as it is" ;;
esac
mount -t ext4 -o noatime "$device" "$dir"
chmod 0700 "$dir"
