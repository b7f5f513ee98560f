"""What everything of one emulator is called. The emulator's port is its name: by it alone everything is found and removed again."""

import dataclasses
import hashlib
import ipaddress
import pathlib

# RFC 2544's range, which no network has by right: it stands in for public addresses. Each emulator takes one /20 of it, whose
# first address is the host's, by which the API is reached.
PUBLIC = ipaddress.ip_network("198.18.0.0/15")
BLOCK = 20

# Amazon's addresses within each network, and the name that the first interface has on today's instances.
METADATA = "169.254.169.254"
RESOLVER = "169.254.169.253"
INTERFACE = "ens5"
# Jumbo frames inside a network, as AWS has them; the way out has the usual size.
INSIDE, OUTSIDE = 9001, 1500


def short(identifier: str, length: int = 10) -> str:
    """A name for an interface, which may have 15 characters."""
    return hashlib.sha256(identifier.encode()).hexdigest()[:length]


@dataclasses.dataclass(frozen=True)
class Names:
    port: int
    directory: pathlib.Path

    @property
    def prefix(self) -> str:
        return f"kup-aws-{self.port}"

    @property
    def edge(self) -> str:
        """The namespace between the host and the networks: the internet."""
        return self.prefix

    @property
    def link(self) -> str:
        """The host's interface towards it."""
        return f"kupaws{self.port}"

    def router(self, vpc: str) -> str:
        return f"{self.prefix}-{vpc}"

    def place(self, owner: str) -> str:
        """The namespace of a machine, or of a balancer in one subnet."""
        return f"{self.prefix}-{owner}"

    def container(self, instance: str) -> str:
        return f"{self.prefix}-{instance}"

    def volume_file(self, volume: str) -> pathlib.Path:
        return self.directory / "volumes" / f"{volume}.img"

    def instance(self, instance: str) -> pathlib.Path:
        return self.directory / "instances" / instance


def up_link(vpc: str) -> str:
    """The edge's interface towards a network."""
    return f"v{short(vpc)}"


def down_link(owner: str) -> str:
    """A router's interface towards a machine; not its interface's in the API, which may go to the next machine while this one ends."""
    return f"e{short(owner)}"


def host_name(address: str) -> str:
    return "ip-" + address.replace(".", "-")


def domain(region: str) -> str:
    return "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
