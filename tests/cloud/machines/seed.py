"""What cloud-init finds at a machine's boot: its NoCloud seed."""

import base64
import json
import pathlib

from machines.names import domain, host_name


def write(directory: pathlib.Path, instance: str, i: dict, e: dict):
    """JSON is YAML enough for cloud-init."""
    directory.mkdir(parents=True, exist_ok=True)
    name = host_name(e["address"])
    meta = {"instance-id": instance, "local-hostname": f"{name}.{domain(i['region'])}", "availability-zone": i["zone"], "region": i["region"]}
    if i["key"]:
        meta["public-keys"] = [i["key"]]
    (directory / "meta-data").write_text(json.dumps(meta, indent=1) + "\n")
    # Without user-data, a file that holds none: a missing one makes the seed no seed.
    (directory / "user-data").write_bytes(base64.b64decode(i["user_data"]) if i["user_data"] else b"")
    (directory / "user-data").chmod(0o600)
