"""Brings what is there to what is wanted, at each change of the emulator's state: networks, rules, machines, volumes."""

import asyncio
import json
import logging
import shutil

from machines import firewall, network, resolver
from machines.balancers import Balancers
from machines.engine import Engine
from machines.machine import Machine
from machines.metadata import Metadata
from machines.names import Names, up_link
from machines.shell import call, namespaces, within
from machines.volumes import Volumes

LOG = logging.getLogger("machines")
# Nothing is lost if word of a change is: all of it is looked at again so often, in seconds.
PERIOD = 1
EMPTY = {"vpcs": {}, "endpoints": {}, "groups": {}, "instances": {}, "volumes": {}, "balancers": {}, "targets": {}}


class Runner:
    def __init__(self, names: Names, image: str):
        self.names = names
        self.engine = Engine(names, image)
        self.volumes = Volumes(names)
        self.world = EMPTY
        self.machines: dict[str, Machine] = {}
        self.balancers = Balancers(names, self.say)
        self.hosts = resolver.Hosts(names)
        # Of each network: the metadata service, and the resolver's sockets.
        self.metadata: dict[str, Metadata] = {}
        self.resolvers: dict[str, list[asyncio.DatagramTransport]] = {}
        # What each router was told last.
        self.rules: dict[str, str] = {}
        self.changed = asyncio.Event()
        self.writer = None

    async def run(self):
        listening = asyncio.create_task(self.listen())
        # Nothing is known before the first word, and to make what is there equal to nothing would be wrong.
        await self.changed.wait()
        await self.adopt()
        while not listening.done():
            self.changed.clear()
            try:
                await self.settle()
            except Exception:
                LOG.exception("not all is as it should be")
            try:
                await asyncio.wait_for(self.changed.wait(), PERIOD)
            except TimeoutError:
                pass
        await listening

    async def listen(self):
        """Takes in each world that the emulator tells. Ends when the emulator has."""
        reader, self.writer = await asyncio.open_unix_connection(str(self.names.directory / "world.sock"), limit=1 << 28)
        while line := await reader.readline():
            world = json.loads(line)
            for name, e in world["endpoints"].items():
                # Balancers' nodes are their interfaces' own.
                e["owner"], e["ranges"] = name, world["vpcs"][e["vpc"]]["ranges"]
            for instance, i in world["instances"].items():
                world["endpoints"][i["endpoint"]]["owner"] = instance
            self.world = world
            self.changed.set()

    def report(self, instance: str, i: dict, state: str):
        self.say({"instance": instance, "account": i["account"], "region": i["region"], "turn": i["turn"], "state": state})

    def say(self, said: dict):
        self.writer.write(json.dumps(said).encode() + b"\n")

    async def adopt(self):
        """What an earlier runner, which was killed, left behind: machines go on, half-made routers and balancers' nodes are made anew."""
        for name in namespaces(self.names.prefix):
            what = name.removeprefix(self.names.prefix + "-")
            if what.startswith("eni-"):
                for vpc in {e["vpc"] for e in self.world["endpoints"].values()}:
                    network.cut(self.names, what, vpc)
                network.remove(name)
            elif what.startswith("vpc-") and not network.whole(name):
                network.remove(name)
        for instance, pid in (await self.engine.all()).items():
            machine = self.machines[instance] = self.new(instance)
            wanted = self.world["instances"].get(instance)
            if wanted and pid:
                machine.endpoint = self.world["endpoints"][wanted["endpoint"]]
                machine.adopt(pid, wanted["turn"])

    def new(self, instance: str) -> Machine:
        return Machine(instance, self.names, self.engine, self.volumes, self.report)

    async def settle(self):
        world = self.world
        await self.settle_routers(world)
        for instance, machine in list(self.machines.items()):
            if machine.gone:
                del self.machines[instance]
                # What it said stays readable, as in AWS for a while.
                shutil.rmtree(self.names.instance(instance) / "seed", ignore_errors=True)
            elif instance not in world["instances"]:
                machine.want(None, None, {})
        for instance, i in world["instances"].items():
            machine = self.machines.get(instance)
            if machine is None:
                machine = self.machines[instance] = self.new(instance)
            disks = {name: v for name, v in world["volumes"].items() if v["attached"] and v["attached"]["instance"] == instance}
            machine.want(i, world["endpoints"][i["endpoint"]], disks)
        await self.balancers.settle(world)
        self.hosts.write({b["name"]: self.balancers.addresses(b) for b in world["balancers"].values() if b["public"]})
        await self.volumes.forget(set(world["volumes"]))
        network.publish(self.names, {e["public"]: up_link(e["vpc"]) for e in world["endpoints"].values() if e["public"]})

    async def settle_routers(self, world):
        wanted = {e["vpc"] for e in world["endpoints"].values()}
        there = {name.removeprefix(self.names.prefix + "-") for name in namespaces(self.names.prefix)}
        for vpc in wanted:
            router = self.names.router(vpc)
            if vpc not in there:
                network.make_router(self.names, vpc, world["vpcs"][vpc]["ranges"])
                self.rules.pop(vpc, None)
            rules = firewall.text(world, vpc)
            if rules != self.rules.get(vpc):
                await call("ip", "netns", "exec", router, "nft", "-f", "-", given=rules)
                self.rules[vpc] = rules
            if vpc not in self.metadata:
                service = self.metadata[vpc] = Metadata(lambda address, vpc=vpc: self.look(vpc, address))
                await service.serve(within(router, Metadata.listen))
                sockets = within(router, resolver.Resolver.listen, resolver.addresses_of(world["vpcs"][vpc]["ranges"]))
                for socket in sockets:
                    made = await asyncio.get_running_loop().create_datagram_endpoint(lambda vpc=vpc: resolver.Resolver(lambda: self.names_in(vpc)), sock=socket)
                    self.resolvers.setdefault(vpc, []).append(made[0])
        busy = {m.endpoint["vpc"] for m in self.machines.values() if m.endpoint}
        for vpc in {name for name in there if name.startswith("vpc-")} - wanted - busy:
            if service := self.metadata.pop(vpc, None):
                service.close()
            for transport in self.resolvers.pop(vpc, []):
                transport.close()
            self.rules.pop(vpc, None)
            network.remove(self.names.router(vpc))

    def names_in(self, vpc: str) -> dict[str, list[str]]:
        if vpc not in self.world["vpcs"]:
            return {}
        balancers = {b["name"]: self.balancers.addresses(b) for b in self.world["balancers"].values() if b["public"] or b["vpc"] == vpc}
        return resolver.table(self.world, vpc, balancers)

    def look(self, vpc: str, address: str):
        """Which machine has an address."""
        for instance, i in self.world["instances"].items():
            e = self.world["endpoints"][i["endpoint"]]
            if e["vpc"] == vpc and e["address"] == address:
                return instance, i, e
        return None
