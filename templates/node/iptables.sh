#!/bin/sh
# Stands in for iptables where a machine has none, as cloud images don't: flannel sets up everything with nftables, but first looks for
# rules of an earlier life in iptables, and does not start without that program. Where it is not, there are none.
case $* in
  *--version*) echo 'iptables v1.8.9 (nf_tables)' ;;
  *)
    echo 'iptables: No chain/target/match by that name.' >&2
    exit 1
    ;;
esac
