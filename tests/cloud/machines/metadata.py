"""The metadata service of each machine, at 169.254.169.254 in its network's router; who asks is known by the address.

It answers as version 2 where tokens are required, and as both where they are not.
"""

import asyncio
import base64
import http
import json
import secrets
import socket
import time

from machines.names import METADATA, domain, host_name

LONGEST = 21600
# The names of versions that clients use; all of them mean the same tree.
VERSIONS = ("latest", "2021-07-15", "2021-03-23", "2020-10-27", "2018-09-24", "2016-09-02", "2009-04-04", "1.0")


class Metadata:
    """The service in one VPC. `look` gives a machine's id, state and interface for an address."""

    def __init__(self, look):
        self.look = look
        # Token -> whose it is, and until when.
        self.tokens: dict[str, tuple[str, float]] = {}
        self.server = None

    @staticmethod
    def listen() -> socket.socket:
        """To be called in the router's namespace."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((METADATA, 80))
        listener.listen(128)
        return listener

    async def serve(self, listener: socket.socket):
        self.server = await asyncio.start_server(self.connected, sock=listener)

    def close(self):
        if self.server:
            self.server.close()

    async def connected(self, reader, writer):
        try:
            while await asyncio.wait_for(self.request(reader, writer), 60):
                pass
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            writer.close()

    async def request(self, reader, writer) -> bool:
        """Answers one; whether another may follow."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        await reader.readexactly(int(headers.get("content-length", 0)))
        status, body, more = self.answer(writer.get_extra_info("peername")[0], method, path, headers)
        kind = "application/json" if body[:1] == b"{" else "text/plain"
        lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Server: EC2ws", *more]
        if again := headers.get("connection", "").lower() != "close":
            lines.append("Connection: keep-alive")
        else:
            lines.append("Connection: close")
        writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else body))
        await writer.drain()
        return again

    def answer(self, address: str, method: str, path: str, headers: dict) -> tuple[int, bytes, list[str]]:
        found = self.look(address)
        if found is None:
            return 404, b"", []
        instance, i, e = found
        if not i["metadata"]["enabled"]:
            return 403, b"", []
        path = path.partition("?")[0]
        if path == "/latest/api/token":
            return self.token(instance, method, headers)
        if method not in ("GET", "HEAD"):
            return 405, b"", ["Allow: GET, HEAD"]
        given = headers.get("x-aws-ec2-metadata-token")
        if given is not None or i["metadata"]["tokens"]:
            whose, until = self.tokens.get(given or "", ("", 0.0))
            if whose != instance or until < time.monotonic():
                return 401, b"", []
        value = find(tree(instance, i, e), path)
        return (404, b"", []) if value is None else (200, value, [])

    def token(self, instance: str, method: str, headers: dict) -> tuple[int, bytes, list[str]]:
        if method != "PUT":
            return 405, b"", ["Allow: OPTIONS, PUT"]
        if "x-forwarded-for" in headers:
            return 403, b"", []
        lifetime = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not lifetime.isdigit() or not 1 <= int(lifetime) <= LONGEST:
            return 400, b"", []
        now = time.monotonic()
        self.tokens = {token: held for token, held in self.tokens.items() if held[1] >= now}
        token = base64.urlsafe_b64encode(secrets.token_bytes(40)).decode()
        self.tokens[token] = (instance, now + int(lifetime))
        return 200, token.encode(), [f"X-aws-ec2-metadata-token-ttl-seconds: {lifetime}"]


def find(node, path: str) -> bytes | None:
    words = [word for word in path.split("/") if word]
    if not words:
        return "\n".join(VERSIONS[::-1]).encode()
    if words[0] not in VERSIONS:
        return None
    for word in words[1:]:
        if not isinstance(node, dict) or word not in node:
            return None
        node = node[word]
    if isinstance(node, dict):
        # A directory lists what is below it.
        return "\n".join(name + ("/" if isinstance(below, dict) else "") for name, below in sorted(node.items())).encode()
    return node if isinstance(node, bytes) else str(node).encode()


def tree(instance: str, i: dict, e: dict) -> dict:
    name = f"{host_name(e['address'])}.{domain(i['region'])}"
    public = {"public-ipv4": e["public"], "public-hostname": public_name(e["public"], i["region"])} if e["public"] else {}
    interface = {
        "device-number": "0",
        "interface-id": i["endpoint"],
        "local-hostname": name,
        "local-ipv4s": e["address"],
        "mac": e["mac"],
        "owner-id": i["account"],
        "security-group-ids": "\n".join(i["group_ids"]),
        "security-groups": "\n".join(i["groups"]),
        "subnet-id": i["subnet"],
        "subnet-ipv4-cidr-block": e["range"],
        "vpc-id": i["vpc"],
        "vpc-ipv4-cidr-block": e["ranges"][0],
        "vpc-ipv4-cidr-blocks": "\n".join(e["ranges"]),
    }
    if e["public"]:
        interface |= {"public-ipv4s": e["public"], "public-hostname": public["public-hostname"], "ipv4-associations": {e["public"]: e["address"]}}
    meta = {
        "ami-id": i["image"],
        "ami-launch-index": "0",
        "ami-manifest-path": "(unknown)",
        "block-device-mapping": {"ami": i["root"], "root": i["root"]} | {f"ebs{n}": device for n, device in enumerate(i["disks"], 1)},
        "hostname": name,
        "instance-action": "none",
        "instance-id": instance,
        "instance-life-cycle": i["lifecycle"],
        "instance-type": i["type"],
        "local-hostname": name,
        "local-ipv4": e["address"],
        "mac": e["mac"],
        "network": {"interfaces": {"macs": {e["mac"]: interface}}},
        "placement": {"availability-zone": i["zone"], "region": i["region"]},
        "reservation-id": i["reservation"],
        "security-groups": "\n".join(i["groups"]),
        "services": {"domain": "amazonaws.com", "partition": "aws"},
        **public,
    }
    if i["key"]:
        meta["public-keys"] = {"0": {"openssh-key": i["key"]}}
    if i["metadata"]["tags"]:
        meta["tags"] = {"instance": {key: value for key, value in i["tags"].items() if "/" not in key}}
    profile = i["profile"]
    if profile and profile["credentials"]:
        info = {"Code": "Success", "LastUpdated": profile["credentials"]["LastUpdated"], "InstanceProfileArn": profile["arn"], "InstanceProfileId": profile["id"]}
        meta["iam"] = {"info": pretty(info), "security-credentials": {profile["role"]: pretty(profile["credentials"])}}
    identity = {
        "accountId": i["account"],
        "architecture": i["architecture"],
        "availabilityZone": i["zone"],
        "billingProducts": None,
        "devpayProductCodes": None,
        "marketplaceProductCodes": None,
        "imageId": i["image"],
        "instanceId": instance,
        "instanceType": i["type"],
        "kernelId": None,
        "pendingTime": i["launched"],
        "privateIp": e["address"],
        "ramdiskId": None,
        "region": i["region"],
        "version": "2017-09-30",
    }
    root = {"meta-data": meta, "dynamic": {"instance-identity": {"document": pretty(identity)}}}
    if i["user_data"]:
        root["user-data"] = base64.b64decode(i["user_data"])
    return root


def public_name(address: str, region: str) -> str:
    zone = "compute-1" if region == "us-east-1" else f"{region}.compute"
    return f"ec2-{address.replace('.', '-')}.{zone}.amazonaws.com"


def pretty(value: dict) -> str:
    return json.dumps(value, indent=2)
