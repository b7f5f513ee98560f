"""Names: each network's resolver, at its range's third address and at 169.254.169.253, and the balancers' names for the host itself."""

import asyncio
import fcntl
import ipaddress
import pathlib
import socket
import struct

from machines.metadata import public_name
from machines.names import RESOLVER, Names, domain, host_name

A, PTR, AAAA, IN = 1, 12, 28, 1
# Seconds that an answer holds: as long as a balancer's names do in AWS.
LIFETIME = 60
HOSTS = pathlib.Path("/etc/hosts")


def table(world: dict, vpc: str, balancers: dict[str, list[str]]) -> dict[str, list[str]]:
    """Every name that machines in a network can ask for."""
    region = world["vpcs"][vpc]["region"]
    names = dict(balancers)
    for e in world["endpoints"].values():
        if e["vpc"] == vpc:
            names[f"{host_name(e['address'])}.{domain(region)}"] = [e["address"]]
        if e["public"]:
            # From inside, such a name means the private address.
            names[public_name(e["public"], region)] = [e["address"] if e["vpc"] == vpc else e["public"]]
    return {name.lower(): addresses for name, addresses in names.items()}


class Resolver(asyncio.DatagramProtocol):
    def __init__(self, look):
        # `look` gives the table of now.
        self.look = look

    @staticmethod
    def listen(addresses: list[str]) -> list[socket.socket]:
        """To be called in the router's namespace. A socket for each address: an answer comes from where it was asked."""
        made = []
        for address in addresses:
            listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, 53))
            listener.setblocking(False)
            made.append(listener)
        return made

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        try:
            reply = answer(data, self.look())
        except (IndexError, struct.error, UnicodeDecodeError):
            return
        self.transport.sendto(reply, address)


def addresses_of(ranges: list[str]) -> list[str]:
    return [RESOLVER, str(ipaddress.ip_network(ranges[0])[2])]


def answer(query: bytes, names: dict[str, list[str]]) -> bytes:
    number, flags, questions = struct.unpack(">HHH", query[:6])
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    kind, class_ = struct.unpack(">HH", query[at + 1 : at + 5])
    question = query[12 : at + 5]
    name = ".".join(labels).lower()
    records = []
    known = False
    if questions == 1 and class_ == IN:
        if name.endswith(".in-addr.arpa"):
            address = ".".join(reversed(labels[:4]))
            whose = next((n for n, addresses in names.items() if n.startswith("ip-") and addresses == [address]), None)
            known = whose is not None
            if known and kind == PTR:
                records.append(encoded(whose))
        else:
            known = name in names
            if kind == A:
                records = [socket.inet_aton(address) for address in names.get(name, [])]
    # Recursion is there for whoever asks; a name that nobody has is an answer too.
    head = struct.pack(">HHHHHH", number, 0x8080 | (flags & 0x0100) | (0 if known else 3), 1, len(records), 0, 0)
    return head + question + b"".join(struct.pack(">HHHIH", 0xC00C, kind, IN, LIFETIME, len(record)) + record for record in records)


def encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


class Hosts:
    """The balancers' names in the host's own file of names, between two lines that say whose they are."""

    def __init__(self, names: Names):
        self.begin, self.end = f"# {names.prefix} begin: written by scripts/aws-emulator, removed by its stop", f"# {names.prefix} end"
        self.written = None

    def write(self, balancers: dict[str, list[str]]):
        lines = sorted(f"{address} {name}" for name, addresses in balancers.items() for address in addresses)
        if lines == self.written:
            return
        with open(HOSTS, "r+") as file:
            # In place: where this is a container, the file is a mount and can't be replaced.
            fcntl.flock(file, fcntl.LOCK_EX)
            before, kept, ours = file.read(), [], False
            for line in before.splitlines():
                ours = ours or line == self.begin
                if not ours:
                    kept.append(line)
                ours = ours and line != self.end
            text = "\n".join([*kept, *([self.begin, *lines, self.end] if lines else [])]) + "\n"
            if lines or self.begin in before:
                file.seek(0)
                file.write(text)
                file.truncate()
        self.written = lines
