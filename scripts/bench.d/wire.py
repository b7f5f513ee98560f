"""Runs a program whose calls of AWS go to an emulator, and measures both on the line between them.

usage: wire.py EMULATOR PORT DIR COMMAND...     for example: wire.py http://127.0.0.1:4566 4567 /tmp/up kup up --provider aws

The program finds the emulator on PORT: always the same one for a cluster, since machines are told where S3 is, and a change of that is one of
the cluster. Leaves `usage` (JSON), and the program's `stdout` and `stderr` in DIR; ends with the program's own exit code. Where each number
comes from:
  wall         from the start of the program to its end
  own          wall without the times at which a call had no answer yet: what the program itself takes, whoever answers. What it does
               while another call of its own is on its way is not in it; CPU seconds have that
  cpuSeconds   user and system time, as the kernel counted it at its end
  memoryMiB    the high-water mark in /proc at the last look (every 10 ms) before that
  slowest      the call whose answer took longest
  calls        requests on the line, tries again included; mutating are those whose names don't begin like those of calls that read
"""

import asyncio
import collections
import json
import os
import re
import subprocess
import sys
import time

READS = ("Describe", "Get", "List", "Head", "Simulate", "Decode")
# What S3 has in its query to tell what of a bucket is meant.
PARTS = {
    "versioning": "BucketVersioning",
    "publicAccessBlock": "PublicAccessBlock",
    "encryption": "BucketEncryption",
    "policy": "BucketPolicy",
    "tagging": "BucketTagging",
    "lifecycle": "BucketLifecycleConfiguration",
    "ownershipControls": "BucketOwnershipControls",
    "location": "BucketLocation",
}


def s3_name(method, target):
    """S3 tells its calls apart by method, path and the words of the query."""
    path, _, query = target.partition("?")
    words = {part.partition("=")[0] for part in query.split("&")}
    bucket, _, key = path.strip("/").partition("/")
    verb = {"PUT": "Put", "DELETE": "Delete", "HEAD": "Head"}.get(method, "Get")
    if key:
        return f"{verb}Object"
    if not bucket:
        return "ListBuckets"
    for word, part in PARTS.items():
        if word in words:
            return verb + part
    if method == "POST":
        return "DeleteObjects" if "delete" in words else "PostBucket"
    if method != "GET":
        return {"PUT": "CreateBucket", "DELETE": "DeleteBucket"}.get(method, "HeadBucket")
    if "versions" in words:
        return "ListObjectVersions"
    return "ListMultipartUploads" if "uploads" in words else "ListObjectsV2"


def call_name(method, target, headers, body):
    """`service:Operation`, by the protocol of each service."""
    # Credential=AKID/20261125/us-west-2/ec2/aws4_request
    scope = re.search(r"Credential=[^/]*/[^/]*/[^/]*/([^/]*)/", headers.get("authorization", ""))
    service = scope[1] if scope else "unknown"
    if "x-amz-target" in headers:
        return f"{service}:{headers['x-amz-target'].rpartition('.')[2]}"
    if service == "s3":
        return f"s3:{s3_name(method, target)}"
    action = re.search(rb"(?:^|&)Action=(\w+)", body)
    return f"{service}:{action[1].decode() if action else 'Unknown'}"


async def read_head(reader):
    """The first line and the headers of a message, as they are and by their names."""
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return raw, first.split(" "), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def read_body(reader, headers, to_the_end):
    """A message's body as it is on the line."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        raw = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            raw += line
            if size == 0:
                # Trailers, if there are any, up to an empty line.
                while line != b"\r\n":
                    line = await reader.readuntil(b"\r\n")
                    raw += line
                return raw
            raw += await reader.readexactly(size + 2)
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read() if to_the_end else b""


class Wire:
    def __init__(self, emulator):
        self.host, _, self.port = emulator.removeprefix("http://").partition(":")
        self.calls = []

    async def serve(self, reader, writer):
        """One connection of the program's, and one of its own to the emulator, for as long as both want it."""
        emulator = []
        try:
            while await self.exchange(reader, writer, emulator):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for each in (writer, *emulator[1:]):
                each.close()

    async def exchange(self, reader, writer, emulator):
        """Passes a call on, and its answer back; says whether the connection stays."""
        raw, (method, target, *_), headers = await read_head(reader)
        call = {"start": time.monotonic(), "end": None}
        self.calls.append(call)
        if not emulator:
            emulator.extend(await asyncio.open_connection(self.host, self.port, limit=1 << 20))
        up_reader, up_writer = emulator
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            raw = re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", raw, count=1)
        body = await read_body(reader, headers, False)
        call["name"] = call_name(method, target, headers, body)
        up_writer.write(raw + body)
        raw, (version, status, *_), headers = await read_head(up_reader)
        empty = method == "HEAD" or status in ("204", "304")
        lengthless = "content-length" not in headers and "transfer-encoding" not in headers
        body = b"" if empty else await read_body(up_reader, headers, True)
        call["end"] = time.monotonic()
        call["status"] = int(status)
        writer.write(raw + body)
        await writer.drain()
        return version == "HTTP/1.1" and headers.get("connection", "").lower() != "close" and (empty or not lengthless)


def unanswered(calls, start, end):
    """For how long at least one call had no answer."""
    total, until = 0.0, start
    for call in sorted(calls, key=lambda call: call["start"]):
        begins, ends = max(call["start"], until), min(call["end"] or end, end)
        if ends > begins:
            total += ends - begins
            until = ends
    return total


async def memory(process, seen):
    """Looks at the program's greatest size again and again, until it is cancelled."""
    while True:
        try:
            with open(f"/proc/{process}/status") as status:
                found = re.search(r"VmHWM:\s*(\d+)", status.read())
            if found:
                seen["kib"] = max(seen["kib"], int(found[1]))
        except OSError:
            pass
        await asyncio.sleep(0.01)


def wait(process):
    _, status, usage = os.wait4(process, 0)
    return time.monotonic(), os.waitstatus_to_exitcode(status), usage


async def main(emulator, port, directory, *command):
    wire = Wire(emulator)
    await asyncio.start_server(wire.serve, "127.0.0.1", int(port), limit=1 << 20)
    seen = {"kib": 0}
    with open(f"{directory}/stdout", "wb") as stdout, open(f"{directory}/stderr", "wb") as stderr:
        start = time.monotonic()
        # The program does not outlive this one, however this one ends.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            env={**os.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        ).pid
    look = asyncio.create_task(memory(process, seen))
    end, code, usage = await asyncio.to_thread(wait, process)
    look.cancel()
    names = [call.get("name", "unknown:Unknown") for call in wire.calls]
    mutating = [name for name in names if not name.partition(":")[2].startswith(READS)]
    waited = unanswered(wire.calls, start, end)
    slowest = max(wire.calls, key=lambda call: (call["end"] or end) - call["start"], default=None)
    result = {
        "wall": end - start,
        "own": end - start - waited,
        "cpuSeconds": usage.ru_utime + usage.ru_stime,
        "memoryMiB": seen["kib"] / 1024,
        "calls": len(names),
        "mutating": len(mutating),
        "slowest": slowest and {"name": slowest.get("name"), "seconds": (slowest["end"] or end) - slowest["start"]},
        "names": dict(sorted(collections.Counter(names).items())),
        "refused": dict(sorted(collections.Counter(call["name"] for call in wire.calls if call.get("status", 0) >= 400).items())),
    }
    with open(f"{directory}/usage", "w") as file:
        json.dump(result, file)
    return code if code >= 0 else 128 - code


if len(sys.argv) < 5:
    sys.exit("usage: wire.py EMULATOR PORT DIR COMMAND...")
# Connections that are still open are not waited for.
os._exit(asyncio.run(main(*sys.argv[1:])))
