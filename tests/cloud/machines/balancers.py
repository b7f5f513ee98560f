"""Network load balancers: a node in each subnet, in a namespace of its own as machines are, that hands connections on to healthy targets.

Who connects is not passed on: targets see the node, as with client-address preservation off.
"""

import asyncio
import itertools
import logging
import socket

from machines import network
from machines.health import FAILED, HEALTHY, Target
from machines.names import Names
from machines.shell import connected_from, namespaces, within

LOG = logging.getLogger("machines")
PIECE = 1 << 16
# How long a target that is said to be healthy may take to take a connection, in seconds: nobody who waits for one waits longer.
PATIENCE = 60


class Balancers:
    def __init__(self, names: Names, report):
        self.names, self.report = names, report
        self.world = {"balancers": {}, "targets": {}, "endpoints": {}}
        # (node, port) -> its listener; (group, target, port) -> its checks.
        self.listeners: dict[tuple[str, str], asyncio.Server] = {}
        self.targets: dict[str, Target] = {}
        self.places: dict[str, str] = {}
        # (group, target, port) -> the connections that it has, both ends of each.
        self.flows: dict[str, set[asyncio.Transport]] = {}
        self.turns = itertools.count()
        self.told: dict[str, list] = {}

    async def settle(self, world: dict):
        self.world = world
        nodes = {node: b for b in world["balancers"].values() for node in b["nodes"]}
        there = {name.removeprefix(self.names.prefix + "-") for name in namespaces(self.names.prefix)}
        for node in nodes:
            if node not in there:
                network.make_place(self.names, world["endpoints"][node])
            self.places[node] = world["endpoints"][node]["vpc"]
        wanted = {(node, port): listener["protocol"] for node, b in nodes.items() for port, listener in b["listeners"].items()}
        for key in [key for key in self.listeners if key not in wanted]:
            self.listeners.pop(key).close()
        for (node, port), protocol in wanted.items():
            # What is no stream is not forwarded.
            if (node, port) not in self.listeners and protocol in ("TCP", "TLS", "TCP_UDP"):
                listener = within(self.names.place(node), listen, world["endpoints"][node]["address"], int(port))
                serve = lambda reader, writer, node=node, port=port: self.forward(node, port, reader, writer)  # noqa: E731
                self.listeners[node, port] = await asyncio.start_server(serve, sock=listener)
        self.settle_targets(world)
        for node in [name for name in there if name.startswith("eni-") and name not in nodes]:
            if vpc := self.places.pop(node, None):
                network.cut(self.names, node, vpc)
            network.remove(self.names.place(node))

    def settle_targets(self, world: dict):
        wanted = {}
        for b in world["balancers"].values():
            node = next(iter(sorted(b["nodes"])), None)
            for listener in b["listeners"].values():
                group = world["targets"].get(listener["targets"])
                for target in group["targets"] if group and node else []:
                    wanted[key_of(listener["targets"], target)] = (self.names.place(node), target, group["check"])
        for key, target in list(self.targets.items()):
            if key not in wanted or wanted[key] != (target.namespace, target.target, target.check):
                target.close()
                del self.targets[key]
        for key, (namespace, target, check) in wanted.items():
            if key not in self.targets:
                self.targets[key] = Target(namespace, target, check, self.tell)
        self.tell()

    def tell(self):
        health = {key: target.state for key, target in self.targets.items()}
        for key, flows in self.flows.items():
            # What a target had is reset when it is found unhealthy, unless all are, as AWS does where nobody turned that off.
            if health.get(key) is FAILED and any(state is HEALTHY for other, state in health.items() if group_of(other) == group_of(key)):
                for flow in list(flows):
                    flow.abort()
        if health != self.told:
            self.report({"health": health})
            self.told = health

    def healthy(self, b: dict, port: str, zone: str) -> list[dict]:
        """Where a node of this zone may send a connection."""
        arn = b["listeners"][port]["targets"]
        group = self.world["targets"].get(arn) or {"targets": []}
        checked = {key_of(arn, t): t for t in group["targets"]}
        good = [t for key, t in checked.items() if key in self.targets and self.targets[key].state is HEALTHY]
        cross = b["cross"] if group.get("cross") is None else group["cross"]
        return [t for t in good if cross or t["zone"] == zone]

    def addresses(self, b: dict) -> list[str]:
        """What the name means: the nodes that have somewhere to send to, and all of them if none has."""
        which = "public" if b["public"] else "address"
        of = {node: self.world["endpoints"][node][which] for node in b["nodes"] if node in self.world["endpoints"]}
        useful = [address for node, address in of.items() if any(self.healthy(b, port, b["nodes"][node]) for port in b["listeners"])]
        return sorted(address for address in useful or of.values() if address)

    async def forward(self, node: str, port: str, reader, writer):
        b = next((b for b in self.world["balancers"].values() if node in b["nodes"]), None)
        candidates = self.healthy(b, port, b["nodes"][node]) if b and port in b["listeners"] else []
        if not candidates:
            # Nobody is there: refused, as far as an accepted connection can be.
            writer.transport.abort()
            return
        target = candidates[next(self.turns) % len(candidates)]
        try:
            connection = await asyncio.wait_for(connected_from(self.names.place(node), (target["address"], target["port"])), PATIENCE)
        except (OSError, TimeoutError):
            # A connection has one target. Who is sent to one that is dead, and not yet known to be, is not sent to another.
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection(sock=connection)
        flows = self.flows.setdefault(key_of(b["listeners"][port]["targets"], target), set())
        ends = {writer.transport, there_writer.transport}
        flows |= ends
        try:
            await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))
        finally:
            flows -= ends
            there_writer.close()
            writer.close()


def key_of(group: str, target: dict) -> str:
    return f"{group} {target['id']} {target['port']}"


def group_of(key: str) -> str:
    return key.split(" ", 1)[0]


def listen(address: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(512)
    return listener


async def pump(reader, writer):
    """One way of a connection, to its end; the other may go on."""
    try:
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    except OSError:
        # Whoever it was that broke off, the other side hears of it.
        writer.transport.abort()
