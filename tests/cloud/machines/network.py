"""Namespaces, links and routes.

    host ── edge ──┬── router of a VPC ──┬── machine
                   │                     └── machine, balancer …
                   └── router of another VPC …

The edge is the internet: it knows the public addresses, and no way but to the host's own address of this link. Each VPC has a router, so
that VPCs may have the same addresses. A machine hangs on its router by a link of its own and sees its subnet as one network; the router
answers for all others in it, and so every packet, within a subnet too, passes the router's rules (firewall.py).
"""

import fcntl
import ipaddress
import json
import re

from machines.names import BLOCK, INSIDE, INTERFACE, METADATA, OUTSIDE, PUBLIC, RESOLVER, Names, down_link, up_link
from machines.shell import ip, namespaces, run, sysctl

# The two ends of the link between edge and router; each router has the same.
EDGE_END, ROUTER_END = "169.254.1.1", "169.254.1.2"
LOCK = "/run/kup-aws-emulator.lock"


def forwarding(namespace: str):
    sysctl(
        namespace,
        ipv4__ip_forward=1,
        ipv4__conf__all__rp_filter=0,
        ipv4__conf__default__rp_filter=0,
        ipv4__conf__all__send_redirects=0,
        ipv4__conf__default__send_redirects=0,
        ipv6__conf__all__disable_ipv6=1,
        ipv6__conf__default__disable_ipv6=1,
    )


def make_edge(names: Names) -> ipaddress.IPv4Network:
    """Links the host with a part of the public range that nobody here has yet. Returns that part; its first address is the host's."""
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        block = free_block()
        host = block[1]
        run("ip", "netns", "add", names.edge)
        ip(
            f"link add {names.link} type veth peer name host netns {names.edge}",
            f"link set {names.link} mtu {OUTSIDE} up",
            f"addr add {host}/{BLOCK} dev {names.link}",
        )
    forwarding(names.edge)
    ip(
        "link set lo up",
        f"link set host mtu {OUTSIDE} up",
        f"route add {host} dev host",
        # Whoever has none of the addresses is nowhere.
        f"route add blackhole {block} metric 1000",
        namespace=names.edge,
    )
    # It answers for each address that it knows a way to, and at once.
    sysctl(names.edge, ipv4__conf__host__proxy_arp=1, ipv4__neigh__host__proxy_delay=0)
    return block


def free_block() -> ipaddress.IPv4Network:
    routes = json.loads(run("ip", "-j", "-4", "route", "show", "table", "all"))
    taken = [ipaddress.ip_network(route["dst"]) for route in routes if re.match(r"[\d.]+(/\d+)?$", route.get("dst", ""))]
    for block in PUBLIC.subnets(new_prefix=BLOCK):
        if not any(block.overlaps(route) for route in taken if route.prefixlen >= PUBLIC.prefixlen):
            return block
    raise RuntimeError(f"all of {PUBLIC} is in use on this host")


def make_router(names: Names, vpc: str, ranges: list[str]):
    router, link = names.router(vpc), up_link(vpc)
    run("ip", "netns", "add", router)
    ip(
        f"link add {link} type veth peer name igw netns {router}",
        f"link set {link} mtu {OUTSIDE} up",
        f"addr add {EDGE_END}/32 dev {link}",
        namespace=names.edge,
    )
    forwarding(router)
    ip(
        "link set lo up",
        f"addr add {METADATA}/32 dev lo",
        f"addr add {RESOLVER}/32 dev lo",
        # The resolver's other address, as every VPC has it.
        f"addr add {ipaddress.ip_network(ranges[0])[2]}/32 dev lo",
        f"link set igw mtu {OUTSIDE} up",
        f"addr add {ROUTER_END}/32 dev igw",
        f"route add default via {EDGE_END} dev igw onlink",
        *(f"route add blackhole {range_} metric 1000" for range_ in ranges),
        namespace=router,
    )


def whole(router: str) -> bool:
    """Whether a router was made to the end."""
    return "blackhole" in run("ip", "-n", router, "route", "show")


def make_place(names: Names, e: dict):
    """A machine's own namespace: its address in its subnet, and the way to all others."""
    place, router, link = names.place(e["owner"]), names.router(e["vpc"]), down_link(e["owner"])
    subnet = ipaddress.ip_network(e["range"])
    run("ip", "netns", "add", place)
    ip(f"link add {INTERFACE} address {e['mac']} mtu {INSIDE} type veth peer name {link} netns {router}", namespace=place)
    sysctl(router, **{f"ipv4__conf__{link}__proxy_arp": 1, f"ipv4__neigh__{link}__proxy_delay": 0})
    ip(
        f"addr replace {subnet[1]}/32 dev lo",
        f"link set {link} mtu {INSIDE} up",
        f"route replace {e['address']} dev {link}",
        f"neigh replace {e['address']} lladdr {e['mac']} dev {link} nud permanent",
        namespace=router,
    )
    sysctl(place, ipv6__conf__all__disable_ipv6=1, ipv6__conf__default__disable_ipv6=1)
    ip(
        "link set lo up",
        f"addr add {e['address']}/{subnet.prefixlen} brd + dev {INTERFACE}",
        f"link set {INTERFACE} up",
        f"route add default via {subnet[1]} dev {INTERFACE}",
        namespace=place,
    )


def cut(names: Names, owner: str, vpc: str):
    """Takes a machine off the network at once, though its processes may hold its namespace for a while."""
    run("ip", "-n", names.router(vpc), "link", "delete", down_link(owner), check=False)


def publish(names: Names, wanted: dict[str, str]):
    """Sends each public address to the network that has it, and forgets the others."""
    routes = json.loads(run("ip", "-n", names.edge, "-j", "-4", "route", "show"))
    there = {route["dst"]: route["dev"] for route in routes if route.get("dev", "host") != "host" and route.get("gateway") == ROUTER_END}
    lines = [f"route del {address}" for address in there if address not in wanted]
    lines += [f"route replace {address} via {ROUTER_END} dev {link} onlink" for address, link in wanted.items() if there.get(address) != link]
    if lines:
        ip(*lines, namespace=names.edge)


def remove(namespace: str):
    """Its links go with it, and with them the routes to it."""
    run("ip", "netns", "delete", namespace, check=False)


def inside(names: Names) -> list[str]:
    return [name for name in namespaces(names.prefix) if name != names.edge]

