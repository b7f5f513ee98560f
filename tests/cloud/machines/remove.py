"""Removes everything of one emulator by its name, whatever state it was left in, also if none of its processes runs any more."""

import pathlib
import shutil

from machines import network, volumes
from machines.engine import LABEL
from machines.names import Names
from machines.resolver import Hosts
from machines.shell import namespaces, run


def all_of(names: Names):
    listing = ["podman", "ps", "-a", f"--filter=label={LABEL}={names.port}", "--format={{.ID}}"]
    while containers := run(*listing).split():
        run("podman", "rm", "-f", "-t", 0, "--ignore", *containers)
    kept = [name for name in run("podman", "volume", "ls", "-q").split() if name.startswith(names.prefix + "-i-")]
    if kept:
        run("podman", "volume", "rm", "-f", *kept)
    # A veth goes with its other end; the namespaces' own may be held by something for a moment, so the host's is named.
    run("ip", "link", "delete", names.link, check=False)
    for namespace in namespaces(names.prefix):
        network.remove(namespace)
    volumes.remove_all(names)
    Hosts(names).write({})
    shutil.rmtree(pathlib.Path(names.directory), ignore_errors=True)
