"""Other programs, and namespaces."""

import asyncio
import os
import pathlib
import socket
import subprocess
import threading

NAMESPACES = pathlib.Path("/run/netns")


class Failed(Exception):
    """A command that did not do what it should."""


def run(*words, given: str | None = None, check: bool = True) -> str:
    """Runs a command to its end, and gives what it printed."""
    done = subprocess.run([str(w) for w in words], input=given, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise Failed(f"{' '.join(map(str, words))}: {done.stderr.strip() or done.returncode}{told(given)}")
    return done.stdout


async def call(*words, given: str | None = None, check: bool = True) -> str:
    """The same, while others go on."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words),
        stdin=asyncio.subprocess.PIPE if given is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, failed = await process.communicate(given.encode() if given is not None else None)
    if check and process.returncode:
        raise Failed(f"{' '.join(map(str, words))}: {failed.decode().strip() or process.returncode}{told(given)}")
    return said.decode()


def told(given: str | None) -> str:
    return f"\n{given}" if given else ""


def ip(*lines: str, namespace: str | None = None):
    """Commands of ip(8), in one process."""
    run("ip", *(["-n", namespace] if namespace else []), "-batch", "-", given="\n".join(lines) + "\n")


def namespaces(prefix: str) -> list[str]:
    """Those of this name and below."""
    if not NAMESPACES.exists():
        return []
    return sorted(path.name for path in NAMESPACES.iterdir() if path.name == prefix or path.name.startswith(prefix + "-"))


def within(namespace: str, function, *arguments):
    """Calls a function in a network namespace. A socket that it makes stays there."""
    result = []

    def enter():
        try:
            with open(NAMESPACES / namespace) as file:
                os.setns(file.fileno(), os.CLONE_NEWNET)
            result.append((True, function(*arguments)))
        except Exception as e:
            result.append((False, e))

    # The namespace is the thread's own, so the thread is for this alone.
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    good, value = result[0]
    if not good:
        raise value
    return value


def sysctl(namespace: str, **values):
    """Sets /proc/sys/net/... in a namespace; `__` stands for a slash."""

    def write():
        for name, value in values.items():
            pathlib.Path("/proc/sys/net", name.replace("__", "/")).write_text(str(value))

    within(namespace, write)


async def connected_from(namespace: str, to: tuple[str, int]) -> socket.socket:
    """A connection out of a namespace."""
    connection = within(namespace, socket.socket)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, to)
    except BaseException:
        connection.close()
        raise
    return connection
