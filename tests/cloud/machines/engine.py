"""The containers that are machines: how podman is told to make and end them."""

import json
import os
import pathlib
import resource
import shutil

from machines.names import Names, domain, host_name
from machines.shell import Failed, call

LABEL = "kup.aws-emulator"
# How many files or processes a machine may have; no node needs more.
FILES = 1048576


def flags() -> list[str]:
    """What this host wants to be told for a machine: as src/machine/host.rs works it out for the local provider."""
    told = ["--privileged", "--cgroupns=private", "--pids-limit=-1", "--tmpfs=/run", "--tmpfs=/tmp", "--no-hosts", "--dns=none", "--pull=never"]
    if pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists():
        told.append("--systemd=always")
    else:
        # crun refuses hybrid control groups; and podman's own help for systemd would make all machines share one hierarchy.
        told += ["--systemd=false", "--env=container=podman"]
        if shutil.which("runc"):
            told = ["--runtime=runc", *told]
    # Who may not raise limits must ask for no more than there is; and podman lowers the number of processes to that of their ids.
    if not may_raise_limits():
        most = {"nofile": FILES, "nproc": min(FILES, int(pathlib.Path("/proc/sys/kernel/pid_max").read_text()))}
        for name, limit in most.items():
            hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            told.append(f"--ulimit={name}={limit}:{limit}")
    if os.path.isdir("/lib/modules"):
        told.append("--volume=/lib/modules:/lib/modules:ro")
    return told


def may_raise_limits() -> bool:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & (1 << 24))
    return False


class Engine:
    def __init__(self, names: Names, image: str):
        self.names, self.image, self.flags = names, image, flags()

    async def start(self, instance: str, i: dict, e: dict) -> int:
        """Makes and starts a machine, or starts it again. Returns its first process."""
        name, directory = self.names.container(instance), self.names.instance(instance)
        if await self.exists(instance):
            await call("podman", "start", name)
        else:
            await call(
                "podman", "run", "--detach", "--tty", f"--name={name}", f"--hostname={host_name(e['address'])}.{domain(i['region'])}",
                f"--label={LABEL}={self.names.port}", f"--network=ns:/run/netns/{self.names.place(instance)}", *self.flags,
                # The console's contents; no more of it is kept than what the API can show.
                "--log-driver=k8s-file", f"--log-opt=path={directory}/console.log", "--log-opt=max-size=4mb",
                f"--volume={name}:/var", f"--volume={directory}/seed:/var/lib/cloud/seed/nocloud:ro", self.image,
            )  # fmt: skip
        return int(await call("podman", "inspect", "--format={{.State.Pid}}", name))

    async def exists(self, instance: str) -> bool:
        try:
            await call("podman", "container", "exists", self.names.container(instance))
        except Failed:
            return False
        return True

    async def stop(self, instance: str):
        """As a machine is switched off: its system ends, or is ended."""
        await call("podman", "stop", "-t", 10, self.names.container(instance))

    async def exit_code(self, instance: str) -> int:
        return int(await call("podman", "wait", self.names.container(instance)))

    async def remove(self, instance: str):
        name = self.names.container(instance)
        await call("podman", "rm", "-f", "-t", 0, "--ignore", name)
        await call("podman", "volume", "rm", "-f", name, check=False)

    async def all(self) -> dict[str, int]:
        """Each machine's first process; 0 for one that doesn't run."""
        said = json.loads(await call("podman", "ps", "-a", f"--filter=label={LABEL}={self.names.port}", "--format=json"))
        prefix = self.names.prefix + "-"
        return {name.removeprefix(prefix): entry.get("Pid", 0) for entry in said for name in entry["Names"]}
