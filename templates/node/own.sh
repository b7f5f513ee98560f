# Makes the files below `root/` this machine's own, by the rules of src/machine/own.rs and facts.rs: puts its values in place of the
# tokens, and writes the files' `sums`. Runs in the directory that kup's archive was unpacked in. Beside what that holds it needs
#   identity   name=, address= and provider_id=
#   settings   what user-data told the machine: group=, and a line for each label= and taint=
#   facts      what inspect.sh says
set -eu
fail() {
  echo "$*" >&2
  exit 1
}
say() { printf '%s=%s\n' "$1" "$2"; }

# Read without a process for each value: that would take longer than all the rest.
name='' address='' provider_id='' group='' interface='' resolver='' container='' cgroup='' raises='' cpus='' memory='' labels=''
: > own-taints
cat identity settings facts > told
while IFS= read -r line; do
  value=${line#*=}
  case ${line%%=*} in
    name) name=$value ;;
    address) address=$value ;;
    provider_id) provider_id=$value ;;
    group) group=$value ;;
    label) labels=$labels,$value ;;
    taint)
      [ -s own-taints ] || echo 'registerWithTaints:' > own-taints
      rest=${value%:*}
      key=${rest%%=*}
      rest=${rest#"$key"}
      printf '  - { key: "%s", value: "%s", effect: %s }\n' "$key" "${rest#=}" "${value##*:}" >> own-taints
      ;;
    interface) interface=$value ;;
    resolver) resolver=$value ;;
    container) container=$value ;;
    cgroup) cgroup=$value ;;
    cap_sys_resource) raises=$value ;;
    cpus) cpus=$value ;;
    memory_kib) memory=$value ;;
  esac
done < told
for known in "name=$name" "address=$address" "provider_id=$provider_id" "group=$group" "interface=$interface" "resolver=$resolver" \
  "container=$container" "cgroup=$cgroup" "cap_sys_resource=$raises" "cpus=$cpus" "memory_kib=$memory"; do
  case $known in
    *=) fail "the ${known%=} of this machine is not known" ;;
    cpus=*[!0-9]* | memory_kib=*[!0-9]*) fail "the fact ${known%%=*} is ${known#*=}, not a number" ;;
  esac
done
memory=$((memory / 1024))

# slice FROM TO PERCENT: adds that share of the machine's memory between two sizes in GiB to what is kept back, in MiB.
slice() {
  size=$memory
  [ "$size" -ge $(($1 * 1024)) ] || size=$(($1 * 1024))
  [ "$size" -le $(($2 * 1024)) ] || size=$(($2 * 1024))
  kube_memory=$((kube_memory + (size - $1 * 1024) * $3 / 100))
}
if [ "$container" = yes ]; then
  kube_cpu=50 kube_memory=100 system_cpu=50 system_memory=100 eviction=1Gi
else
  kube_cpu=60 kube_memory=0 system_cpu=50 eviction=10%
  slice 0 4 25
  slice 4 8 20
  slice 8 16 10
  slice 16 1048576 6
  system_memory=$((kube_memory / 10))
  [ "$system_memory" -ge 100 ] || system_memory=100
  kube_memory=$((kube_memory - system_memory))
  [ "$kube_memory" -ge 100 ] || kube_memory=100
  [ "$cpus" -le 1 ] || kube_cpu=$((kube_cpu + 10 + (cpus - 2) * 5))
fi
if [ "$cgroup" = 2 ]; then driver=systemd unified=true; else driver=cgroupfs unified=false; fi
# Whole lines depend on this one: the files of machines that may not raise limits are beside.
if [ "$raises" = yes ]; then
  restrict=false
else
  restrict=true
  [ ! -d limited ] || cp -Rp limited/. root/
fi

# No two machines ask the masters in the same order.
sum=0
for byte in $(printf '%s' "$name" | od -An -v -tu1); do sum=$((sum + byte)); done
first=$((sum % $(wc -l < hosts)))
{ tail -n "+$((first + 1))" hosts && head -n "$first" hosts; } > own-hosts

{
  say NAME "$name"
  say ADDRESS "$address"
  say PROVIDER_ID "$provider_id"
  say LABELS "kup.dev/role=minion,kup.dev/group=$group$labels"
  say INTERFACE "$interface"
  say RESOLVER "$resolver"
  say CGROUP_DRIVER "$driver"
  say FAIL_CGROUP_V1 "$unified"
  say SYSTEMD_CGROUP "$unified"
  say RESTRICT_OOM "$restrict"
  say EVICTION_DISK "$eviction"
  say KUBE_CPU "$kube_cpu"
  say KUBE_MEMORY "$kube_memory"
  say SYSTEM_CPU "$system_cpu"
  say SYSTEM_MEMORY "$system_memory"
} > values
# What a value may hold is what names, addresses, paths and labels hold; nothing that a file's own syntax would read.
# systemd would put something else in place of a `%`.
odd=$(grep -vxE '[A-Z0-9_]+=[A-Za-z0-9._:/,=@+~-]+|EVICTION_DISK=[0-9]+(%|Gi)' values || :)
[ -z "$odd" ] || fail "this machine's $odd can't be used"
odd=$(grep -vxE 'registerWithTaints:|  - \{ key: "[A-Za-z0-9._/-]+", value: "[A-Za-z0-9._-]*", effect: [A-Za-z]+ \}' own-taints || :)
[ -z "$odd" ] || fail "this machine's taint $odd can't be used"
{
  sed 's/[\&|]/\\&/g; s/^\([A-Z0-9_]*\)=\(.*\)$/s|@KUP_\1@|\2|g/' values
  printf '/^@KUP_HOSTS@$/{\nr own-hosts\nd\n}\n/^@KUP_TAINTS@$/{\nr own-taints\nd\n}\n'
} > fill.sed
grep -rlF '@KUP_' root | xargs sed -i -f fill.sed
! grep -rnE '@KUP_[A-Z0-9_]+@' root >&2 || fail "these are not known of this machine"
(cd root && find . -type f -exec sha256sum {} +) | sed 's|  \./|  /|' > sums
