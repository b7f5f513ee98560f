//! Secrets stay where they belong: files of root, never in arguments, environments or logs.

use super::everywhere;
use crate::ensure;
use crate::support::Check;
use crate::support::checks::World;

/// Every file with a private key or the encryption key is root's alone; minions have none of a master's.
pub async fn secrets_are_roots_alone(w: &World<'_>) -> Check {
    // Pods' own tokens are in their own volumes, which the kubelet guards.
    let script = "grep -rlIs -e 'PRIVATE KEY' -e 'secretbox' /etc /root /home /opt/kup /run /srv /tmp /usr/local /var/log /var/tmp /var/lib/kubelet/pki \
        --exclude-dir=bundle | xargs stat -c '%a %U %n'; find /etc/kup -name '*.kubeconfig' | xargs stat -c '%a %U %n'; stat -c '%a dir %n' /etc/kup/pki /var/lib/kubelet/pki; \
        [ ! -e /var/lib/etcd ] || stat -c '%a dir %n' /var/lib/etcd";
    for (node, seen) in everywhere(w, script).await? {
        ensure!(seen.contains("/etc/kup/pki/kubelet-server.key"), "the search found nothing on {}: {seen}", node.name);
        for line in seen.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            ensure!(matches!(words[..], ["600", "root", _] | ["700", "dir", _]), "{}: {line}", node.name);
        }
        let masters_own = ["cluster-ca.key", "service-account.key", "encryption.yaml", "apiserver", "etcd", "front-proxy"];
        for name in masters_own {
            ensure!(seen.contains(name) == node.master, "{} has {name}, or lacks it:\n{seen}", node.name);
        }
        for name in ["etcd-ca.key", "front-proxy-ca.key"] {
            ensure!(!seen.contains(name), "{} has {name}, which no machine needs", node.name);
        }
    }
    Ok(())
}

/// No piece of any private key stands in a process's arguments or environment, in the journal, or in a file others may read.
pub async fn secrets_are_in_no_argument_and_no_log(w: &World<'_>) -> Check {
    // The second line of every key's PEM, and the encryption key; the last pattern is there to be found.
    let script = "set -u; umask 077; d=$(mktemp -d); trap 'rm -rf $d' EXIT; \
        for f in $(find /etc/kup /var/lib/kubelet/pki -name '*.key' -o -name '*.pem'); do sed -n '/PRIVATE KEY/{n;p;q}' $f; done > $d/patterns; \
        sed -n 's/.*secret: *//p' /etc/kup/encryption.yaml >> $d/patterns 2>/dev/null; \
        echo patterns $(grep -c . $d/patterns); \
        for p in /proc/[0-9]*; do for f in cmdline environ; do grep -qaFf $d/patterns $p/$f 2>/dev/null && echo found in $p/$f: $(tr '\\0' ' ' < $p/cmdline); done; done; \
        journalctl -q --no-pager | grep -cFf $d/patterns | sed 's/^/journal /'; \
        find /etc /run /tmp /var/log /var/tmp -xdev -type f -perm /044 -size -4M -exec grep -lFf $d/patterns {} + 2>/dev/null | sed 's/^/readable /'; \
        grep -qaF api.kup.internal /etc/kup/node.kubeconfig && grep -caF kubelet /proc/$(systemctl show -p MainPID --value kubelet)/cmdline | sed 's/^/control /'";
    for (node, seen) in everywhere(w, script).await? {
        let least = if node.master { 12 } else { 2 };
        let patterns = seen.lines().find_map(|l| l.strip_prefix("patterns ")?.parse::<u32>().ok()).unwrap_or(0);
        ensure!(patterns >= least, "only {patterns} secrets were looked for on {}: {seen}", node.name);
        ensure!(seen.lines().any(|l| l == "control 1"), "the search finds nothing at all on {}: {seen}", node.name);
        ensure!(seen.lines().any(|l| l == "journal 0"), "{}: the journal has a secret: {seen}", node.name);
        ensure!(!seen.contains("found in") && !seen.contains("readable "), "{}: {seen}", node.name);
    }
    Ok(())
}
