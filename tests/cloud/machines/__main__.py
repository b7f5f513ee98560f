"""The runner's command line; scripts/aws-emulator is who uses it.

    python -m machines link PORT DIRECTORY            makes the link to the host; prints the host's address and the range
    python -m machines run PORT DIRECTORY IMAGE       keeps the machines as they should be, until the emulator ends
    python -m machines remove PORT DIRECTORY          removes all of it
"""

import asyncio
import logging
import pathlib
import sys

from machines import network, remove
from machines.names import Names
from machines.runner import Runner


def main(verb, port, directory, image=None):
    names = Names(int(port), pathlib.Path(directory))
    if verb == "link":
        range_ = network.make_edge(names)
        print(range_[1], range_)
    elif verb == "remove":
        remove.all_of(names)
    elif verb == "run":
        logging.basicConfig(format="%(asctime)s machines: %(message)s", level=logging.INFO)
        asyncio.run(Runner(names, image).run())
    else:
        sys.exit(f"no such verb: {verb}")


main(*sys.argv[1:])
