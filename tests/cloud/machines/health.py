"""Health checks of balancers' targets, each as its target group says, sent from a balancer's node as its connections are."""

import asyncio
import logging
import ssl
import time

from machines.shell import connected_from

LOG = logging.getLogger("machines")

INITIAL = ["initial", "Elb.RegistrationInProgress", "Target registration is in progress"]
FAILED = ["unhealthy", "Target.FailedHealthChecks", "Health checks failed"]
GONE = ["unused", "Target.InvalidState", "Target is in the stopped state"]
HEALTHY = ["healthy", None, None]
# A new target is looked at more often than its group says, and one good answer will do: AWS hurries less.
FIRST = 1.0


class Target:
    """One target of one group, checked from one place until it is closed."""

    def __init__(self, namespace: str, target: dict, check: dict, changed):
        self.namespace, self.target, self.check, self.changed = namespace, target, check, changed
        self.state = INITIAL if target["address"] else GONE
        self.good = self.bad = 0
        self.task = asyncio.get_running_loop().create_task(self.watch()) if target["address"] else None

    def close(self):
        if self.task:
            self.task.cancel()

    async def watch(self):
        while True:
            begun = time.monotonic()
            try:
                good = await asyncio.wait_for(self.ask(), self.check["timeout"])
            except (OSError, TimeoutError, ssl.SSLError, ValueError, asyncio.IncompleteReadError):
                good = False
            self.count(good)
            pause = FIRST if self.state is INITIAL else self.check["interval"]
            await asyncio.sleep(max(0.1, pause - (time.monotonic() - begun)))

    def count(self, good: bool):
        self.good, self.bad = (self.good + 1, 0) if good else (0, self.bad + 1)
        before = self.state
        if good and (before is INITIAL or self.good >= self.check["healthy"]):
            self.state = HEALTHY
        elif self.bad >= self.check["unhealthy"]:
            self.state = FAILED
        if self.state is not before:
            self.changed()

    async def ask(self) -> bool:
        port = self.check["port"] or self.target["port"]
        connection = await connected_from(self.namespace, (self.target["address"], port))
        if self.check["protocol"] not in ("HTTP", "HTTPS"):
            connection.close()
            return True
        given = {}
        if self.check["protocol"] == "HTTPS":
            # As AWS: whose certificate it is does not matter.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            given = {"ssl": context, "server_hostname": ""}
        reader, writer = await asyncio.open_connection(sock=connection, **given)
        try:
            head = f"GET {self.check['path']} HTTP/1.1\r\nHost: {self.target['address']}:{port}\r\nUser-Agent: ELB-HealthChecker/2.0\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            code = int((await reader.readline()).split()[1])
        except IndexError:
            return False
        finally:
            writer.close()
        return any(first <= code <= last for first, last in ranges(self.check["codes"]))


def ranges(codes: str) -> list[tuple[int, int]]:
    """200,300-399 as pairs."""
    return [(int(part.partition("-")[0]), int(part.partition("-")[2] or part)) for part in codes.split(",")]
