"""Volumes: a sparse file each, a loop device while a machine has it, and in the machine the names that AWS gives it.

No udev runs in the machines, so the device's node and its link are made from outside.
"""

import os
import pathlib

from machines.names import Names
from machines.shell import call, run

GIB = 1 << 30
BY_ID = "/dev/disk/by-id"


class Volumes:
    def __init__(self, names: Names):
        self.names = names
        # Volume -> its loop device, and the machine that has it.
        self.loops: dict[str, str] = {}
        self.holders: dict[str, str] = {}
        for volume in self.files():
            loop = run("losetup", "-n", "-O", "NAME", "-j", names.volume_file(volume)).split()
            if loop:
                self.loops[volume] = loop[0]

    def files(self) -> list[str]:
        return [path.stem for path in (self.names.directory / "volumes").glob("*.img")]

    async def loop(self, volume: str, size: int) -> str:
        if volume not in self.loops:
            path = self.names.volume_file(volume)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                with open(path, "wb") as file:
                    file.truncate(size * GIB)
            self.loops[volume] = (await call("losetup", "--find", "--show", path)).strip()
        return self.loops[volume]

    async def attach(self, volume: str, size: int, machine: str, pid: int, number: int):
        """Number N is /dev/nvmeNn1; 0 is the machine's own disk."""
        device = os.stat(await self.loop(volume, size)).st_rdev
        node, link = f"/dev/nvme{number}n1", f"{BY_ID}/{serial(volume)}"
        await in_machine(
            pid,
            f"mkdir -p {BY_ID} && {{ [ -b {node} ] || mknod -m 0660 {node} b {os.major(device)} {os.minor(device)}; }} && "
            f"ln -sfn ../../nvme{number}n1 {link} && ln -sfn ../../nvme{number}n1 {link}_1",
        )
        self.holders[volume] = machine

    async def detach(self, volume: str, pid: int, number: int):
        link = f"{BY_ID}/{serial(volume)}"
        # As when a disk is pulled: who uses it gets errors, and it must not stay mounted where it is no more.
        node = f"/dev/nvme{number}n1"
        await in_machine(pid, f"while umount -l {node} 2>/dev/null; do :; done; rm -f {link} {link}_1 {node}")
        self.holders.pop(volume, None)

    def released(self, machine: str):
        """The machine doesn't run any more."""
        self.holders = {volume: holder for volume, holder in self.holders.items() if holder != machine}

    async def forget(self, wanted: set[str]):
        """Removes those that were deleted."""
        for volume in set(self.files()) - wanted:
            if volume in self.holders:
                continue
            if loop := self.loops.pop(volume, None):
                await call("losetup", "-d", loop, check=False)
            self.names.volume_file(volume).unlink(missing_ok=True)


def serial(volume: str) -> str:
    return "nvme-Amazon_Elastic_Block_Store_" + volume.replace("-", "")


async def in_machine(pid: int, script: str):
    await call("nsenter", "-t", pid, "-m", "-r", "-w", "/bin/sh", "-c", script)


def remove_all(names: Names):
    for path in pathlib.Path(names.directory, "volumes").glob("*.img"):
        for loop in run("losetup", "-n", "-O", "NAME", "-j", path).split():
            run("losetup", "-d", loop, check=False)
        path.unlink()
