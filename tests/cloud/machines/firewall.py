"""The rules of one VPC's router, as text for nft: security groups, who has which public address, and how far metadata gets.

Pure: the same state gives the same text. Each text replaces the one before as a whole, in one step.
"""

from machines.names import METADATA, RESOLVER, down_link

PROTOCOLS = {"6": "tcp", "17": "udp", "1": "icmp"}


def text(world: dict, vpc: str) -> str:
    endpoints = {name: e for name, e in world["endpoints"].items() if e["vpc"] == vpc}
    ranges = ", ".join(world["vpcs"][vpc]["ranges"])
    groups = sorted({group for e in endpoints.values() for group in e["groups"]})
    rules_of = lambda group: world["groups"].get(group, {"in": [], "out": []})  # noqa: E731
    named = {rule["with"] for group in groups for way in ("in", "out") for rule in rules_of(group)[way] if rule["with"].startswith("sg-")}
    lines = []
    for group in sorted(named | set(groups)):
        members = sorted(e["address"] for e in endpoints.values() if group in e["groups"])
        lines += [f"set {set_of(group)} {{", "type ipv4_addr", *([f"elements = {{ {', '.join(members)} }}"] if members else []), "}"]
    for group in groups:
        rules = rules_of(group)
        lines += [f"chain {chain_of('in', group)} {{", *(accept(rule, "saddr") for rule in rules["in"]), "}"]
        lines += [f"chain {chain_of('out', group)} {{", *(accept(rule, "daddr") for rule in rules["out"]), "}"]
    for e in endpoints.values():
        lines += leaving(e["owner"], e, ranges) + arriving(e["owner"], e)
    ways = sorted(e["owner"] for e in endpoints.values())
    public = ", ".join(sorted(e["public"] for e in endpoints.values() if e["public"]))
    lines += [
        "chain leaving {",
        # Behind connection tracking and before addresses are changed: a machine's own address, and the one that it means.
        "type filter hook prerouting priority mangle; policy accept;",
        *([f"iifname vmap {{ {', '.join(f'{quoted(w)} : goto {from_(w)}' for w in ways)} }}"] if ways else []),
        'iifname != { "igw", "lo" } drop',
        "}",
        "chain arriving {",
        # Behind all changes of addresses, as the interface of an instance sees packets.
        "type filter hook postrouting priority srcnat + 10; policy accept;",
        *([f"oifname vmap {{ {', '.join(f'{quoted(w)} : goto {to(w)}' for w in ways)} }}"] if ways else []),
        # What means nobody out there never gets there.
        *([f'oifname "igw" ip saddr {{ {public} }} accept'] if public else []),
        'oifname "igw" drop',
        "}",
        "chain own {",
        "type filter hook input priority filter; policy drop;",
        'iifname "lo" accept',
        "ct state established,related accept",
        f"ip daddr {METADATA} tcp dport 80 accept",
        f"ip daddr != {METADATA} meta l4proto {{ tcp, udp }} th dport 53 accept",
        "}",
    ]
    return table("kup_groups", lines) + addresses(endpoints)


def addresses(endpoints: dict) -> str:
    """Public addresses are translated one to one, also between two machines that use them inside of their VPC."""
    pairs = sorted((e["address"], e["public"]) for e in endpoints.values() if e["public"])
    there = ", ".join(f"{public} : {private}" for private, public in pairs)
    back = ", ".join(f"{private} : {public}" for private, public in pairs)
    lines = ["chain there {", "type nat hook prerouting priority dstnat;"]
    if pairs:
        lines.append(f"dnat to ip daddr map {{ {there} }}")
    lines += ["}", "chain back {", "type nat hook postrouting priority srcnat;"]
    if pairs:
        lines.append(f'oifname "igw" snat to ip saddr map {{ {back} }}')
        lines.append(f"ct status dnat snat to ip saddr map {{ {back} }}")
    lines.append("}")
    return table("kup_addresses", lines)


def table(name: str, lines: list[str]) -> str:
    # Made if it isn't there, so that it can be removed; all of it is one step.
    return "\n".join([f"table ip {name}", f"delete table ip {name}", f"table ip {name} {{", *lines, "}", ""])


def leaving(owner: str, e: dict, ranges: str) -> list[str]:
    own = [f"ip saddr != {e['address']} drop"] if e["checked"] else []
    internet = ", ".join(e["internet"])
    out = f"ip daddr != {{ {ranges} }} ip daddr != {{ {internet} }} drop" if internet else f"ip daddr != {{ {ranges} }} drop"
    return [
        f"chain {from_(owner)} {{",
        *own,
        # No group stands before these.
        f"ip daddr {{ {METADATA}, {RESOLVER} }} accept",
        out,
        "ct state established,related accept",
        *(f"jump {chain_of('out', group)}" for group in e["groups"]),
        "accept" if e.get("open") else "drop",
        "}",
    ]


def arriving(owner: str, e: dict) -> list[str]:
    # Hops count down where a machine hands on what it gets: a pod is one hop further.
    hops = [f"ip saddr {METADATA} ip ttl set {e['hops']}"] if e.get("hops") else []
    return [
        f"chain {to(owner)} {{",
        *([f"ip daddr != {e['address']} drop"] if e["checked"] else []),
        *hops,
        f"ip saddr {{ {METADATA}, {RESOLVER} }} accept",
        "ct state established,related accept",
        *(f"jump {chain_of('in', group)}" for group in e["groups"]),
        # A balancer that was made without groups.
        "accept" if e.get("open") else "drop",
        "}",
    ]


def accept(rule: dict, which: str) -> str:
    source = rule["with"]
    who = f"ip {which} @{set_of(source)}" if source.startswith("sg-") else f"ip {which} {source}"
    protocol = PROTOCOLS.get(rule["protocol"], rule["protocol"])
    first, last = rule["from"], rule["to"]
    if protocol == "-1":
        what = ""
    elif protocol in ("tcp", "udp"):
        what = f"{protocol} dport {first}-{last}" if (first, last) not in ((-1, -1), (0, 65535), (None, None)) else f"meta l4proto {protocol}"
    elif protocol == "icmp":
        # Type and code stand where others have ports.
        kind = f" icmp type {first}" if first not in (-1, None) else ""
        code = f" icmp code {last}" if last not in (-1, None) and kind else ""
        what = f"meta l4proto icmp{kind}{code}"
    elif protocol.isdigit():
        what = f"meta l4proto {protocol}"
    else:
        # Protocols of IPv6 have no place in this table.
        return ""
    return f"{who} {what} accept"


def quoted(owner: str) -> str:
    return f'"{down_link(owner)}"'


def set_of(group: str) -> str:
    return "members_" + group.replace("-", "_")


def chain_of(way: str, group: str) -> str:
    return f"{way}_" + group.replace("-", "_")


def from_(owner: str) -> str:
    return "from_" + down_link(owner)


def to(owner: str) -> str:
    return "to_" + down_link(owner)
