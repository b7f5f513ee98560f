# shellcheck shell=bash
# Watches a cluster come up from outside, the same way for kup and for the plain script, at next to no cost: two watches of the API,
# and questions to DNS once a pod of CoreDNS runs. All times are seconds since 1970.

# The question "A of kubernetes.default.svc.cluster.local" over TCP (RFC 1035), and how the right answer ends: 4 bytes, 10.0.0.1.
# Addresses and names are those of kup's default config.
DNS_SERVER=10.0.0.10
DNS_QUESTION='\x00\x36\x6b\x75\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01'
DNS_ANSWER=' 00 04 0a 00 00 01'

# nap SECONDS: sleeps without a process of its own, on a pipe into which nobody writes. Not in a shell with traps: a signal in the
# middle of it is more than bash 5.2 bears.
exec {PIPE}<> <(:)
nap() {
    read -rt "$1" -u "$PIPE" || true
}

# follow SERVER DIR PATH: a path of the API as it changes, with the login in DIR.
follow() {
    curl -sN --noproxy '*' --cacert "$2/ca.crt" --cert "$2/admin.crt" --key "$2/admin.key" "https://$1:6443$3"
}

# observe SERVER DIR: writes nodes.jsonl, pods.jsonl and dns to DIR. DIR has ca.crt, admin.crt and admin.key. Returns at the first
# correct answer in a pod; the watches go on and end with the cluster, or when the caller ends its children.
observe() {
    local server=$1 dir=$2 line
    follow "$server" "$dir" '/api/v1/nodes?watch=1' |
        jq --unbuffered -c '{ t: now, name: .object.metadata.name,
            ready: any(.object.status.conditions[]?; .type == "Ready" and .status == "True") }' >"$dir/nodes.jsonl" &
    while read -r line; do
        echo "$line" >>"$dir/pods.jsonl"
        if [[ $line =~ '"name":"coredns-'.*'"uid":"'([^\"]*)'","phase":"Running"' ]]; then
            ask_dns "${BASH_REMATCH[1]}" >"$dir/dns"
            return
        fi
    done < <(follow "$server" "$dir" '/api/v1/pods?watch=1' |
        jq --unbuffered -c '{ t: now, name: .object.metadata.name, uid: .object.metadata.uid, phase: .object.status.phase }')
}

# The process of a pod of CoreDNS, by the pod's UID in its control group (with underscores under systemd's driver).
coredns_process() {
    local pid group
    for pid in $(pgrep -x coredns); do
        group=$(cat "/proc/$pid/cgroup" 2>/dev/null) || continue
        [[ $group == *"$1"* || $group == *"${1//-/_}"* ]] && echo "$pid" && return
    done
    return 1
}

# Asks DNS in the network of a pod until the answer is right, and prints when that was. A question that hangs is given up and asked
# again.
ask_dns() {
    local pid
    until pid=$(coredns_process "$1"); do nap 0.02; done
    # shellcheck disable=SC2016 # The inner shell expands it.
    until nsenter --net="/proc/$pid/ns/net" timeout 0.7 bash -c '
        exec 4<> <(:)
        until exec 3<>"/dev/tcp/$0/53" && printf "$1" >&3 && n=$(od -An -tu1 -N 2 <&3) && set -- "$1" "$2" $n &&
            [[ $(od -An -v -tx1 -w1000 -N $(($3 * 256 + $4)) <&3) == *"$2" ]]; do
            read -rt 0.02 -u 4 || true
        done
        echo "$EPOCHREALTIME"' "$DNS_SERVER" "$DNS_QUESTION" "$DNS_ANSWER" 2>/dev/null; do :; done
}

# login DIR CA CA_KEY: an administrator's certificate for an hour.
login() {
    cp "$2" "$1/ca.crt"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -CA "$2" -CAkey "$3" -subj "/O=system:masters/CN=bench" \
        -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=clientAuth -keyout "$1/admin.key" -out "$1/admin.crt" 2>/dev/null
}
