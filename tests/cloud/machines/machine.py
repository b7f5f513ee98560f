"""One instance's machine: brought to what is wanted, step by step, by a task of its own."""

import asyncio
import json
import logging
import os

from machines import network, seed
from machines.engine import Engine
from machines.names import Names
from machines.volumes import Volumes

LOG = logging.getLogger("machines")

# How a container's first process ends when its system reboots, as the kernel does it in a namespace of processes: SIGHUP.
REBOOTED = 128 + 1
# ... and when it is switched off: SIGINT.
HALTED = 128 + 2
PATIENCE = 1


class Machine:
    def __init__(self, instance: str, names: Names, engine: Engine, volumes: Volumes, report):
        self.id, self.names, self.engine, self.volumes, self.report = instance, names, engine, volumes, report
        self.wanted: dict | None = None
        self.endpoint: dict | None = None
        self.disks: dict[str, dict] = {}
        self.pid = 0
        # Which start of the instance this is about; one that has ended by itself is not started again before another one is asked for.
        self.turn = self.ended = -1
        # Volume -> its number in this machine.
        self.numbers: dict[str, int] = {}
        self.changed = asyncio.Event()
        self.task = None
        self.gone = False

    def want(self, wanted: dict | None, endpoint: dict | None, disks: dict[str, dict]):
        before = self.wanted, self.endpoint, self.disks
        if endpoint is not None:
            self.endpoint = endpoint
        self.wanted, self.disks = wanted, disks
        if wanted is None and before[0] is not None:
            # Nothing of it is heard of from now on, whatever its task is at.
            self.cut()
        # A disk that another machine has still is asked for again.
        if before != (self.wanted, self.endpoint, self.disks) or self.numbers.keys() != disks.keys():
            self.changed.set()
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self.live())

    def adopt(self, pid: int, turn: int):
        """One that an earlier runner left running."""
        self.turn = turn
        path = self.numbers_file()
        if path.exists():
            self.numbers = json.loads(path.read_text())
            self.volumes.holders |= dict.fromkeys(self.numbers, self.id)
        self.watch(pid)

    async def live(self):
        while not self.gone:
            self.changed.clear()
            try:
                await self.step()
            except Exception as e:
                LOG.error("%s: %s", self.id, e)
                await asyncio.sleep(PATIENCE)
                continue
            if not self.gone:
                await self.changed.wait()

    async def step(self):
        wanted = self.wanted
        if wanted is None:
            await self.remove()
        elif wanted["running"]:
            if self.pid and self.turn != wanted["turn"]:
                await self.stop()
            if not self.pid and self.ended != wanted["turn"]:
                await self.start(wanted)
            if self.pid:
                self.report(self.id, wanted, "running")
                await self.settle_disks()
        elif self.pid:
            await self.stop()
            self.leave_network()

    async def start(self, wanted: dict):
        # Anew each time: what an earlier system set up in it is no part of this one.
        self.leave_network()
        network.make_place(self.names, self.endpoint)
        seed.write(self.names.instance(self.id) / "seed", self.id, wanted, self.endpoint)
        self.numbers = {}
        self.turn = wanted["turn"]
        self.watch(await self.engine.start(self.id, wanted, self.endpoint))
        LOG.info("%s runs", self.id)

    def watch(self, pid: int):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self.ended = self.turn
            return
        self.pid = pid
        loop = asyncio.get_running_loop()

        def ended():
            loop.remove_reader(descriptor)
            os.close(descriptor)
            loop.create_task(self.over(pid))

        loop.add_reader(descriptor, ended)

    async def over(self, pid: int):
        """Its first process has ended, whoever did it."""
        if self.pid != pid:
            return
        self.pid = 0
        self.volumes.released(self.id)
        turn, wanted = self.turn, self.wanted
        if wanted is not None and wanted["running"] and wanted["turn"] == turn:
            code = await self.engine.exit_code(self.id)
            LOG.info("%s ended by itself: %s", self.id, code)
            if code != REBOOTED:
                self.ended = turn
            if code in (0, HALTED):
                self.report(self.id, wanted, "terminated" if wanted["on_shutdown"] == "terminate" else "stopped")
        self.changed.set()

    async def stop(self):
        await self.engine.stop(self.id)
        self.pid = 0
        self.volumes.released(self.id)
        LOG.info("%s is stopped", self.id)

    async def remove(self):
        self.cut()
        await self.engine.remove(self.id)
        self.pid = 0
        self.volumes.released(self.id)
        network.remove(self.names.place(self.id))
        self.gone = True
        LOG.info("%s is gone", self.id)

    def cut(self):
        if self.endpoint:
            network.cut(self.names, self.id, self.endpoint["vpc"])

    def leave_network(self):
        self.cut()
        network.remove(self.names.place(self.id))

    def numbers_file(self):
        return self.names.instance(self.id) / "disks.json"

    async def settle_disks(self):
        before = dict(self.numbers)
        for volume in [v for v in self.numbers if v not in self.disks]:
            await self.volumes.detach(volume, self.pid, self.numbers[volume])
            del self.numbers[volume]
        for volume, disk in self.disks.items():
            # A machine that has it still must be gone first.
            if volume in self.numbers or self.volumes.holders.get(volume, self.id) != self.id:
                continue
            number = next(n for n in range(1, 128) if n not in self.numbers.values())
            await self.volumes.attach(volume, disk["size"], self.id, self.pid, number)
            self.numbers[volume] = number
        if self.numbers != before:
            self.numbers_file().write_text(json.dumps(self.numbers))
