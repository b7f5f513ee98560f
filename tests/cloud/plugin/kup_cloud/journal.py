"""A line of JSON for each call, in the file that KUP_JOURNAL names: what tests and benchmarks read.

    {"n": 12, "time": 1700000000.123, "took": 0.004, "service": "ec2", "action": "CreateVpc", "nth": 1, "region": "us-west-2",
     "mutates": true, "parameters": {...}, "status": 200, "code": null, "request": "...", "fault": null, "machine": null}

`n` counts calls, `nth` those of the action, in the order in which they were begun. `fault` says what was done to it (hostile, or an
ordered fault), `machine` which instance's role called. Secrets and whatever is long stand there as their length and SHA-256.
"""

import hashlib
import json
import threading
import time

from kup_cloud import settings

# Of these, nothing is written but length and hash.
SECRET = {"userdata", "secretaccesskey", "keymaterial", "publickeymaterial", "password", "value", "ssecustomerkey", "sessiontoken", "body"}
# Longer values too.
LONG = 512
# Bodies up to this are hashed.
HASHED = 8 << 20

_lock = threading.Lock()
_file = open(settings.JOURNAL, "a", buffering=1) if settings.JOURNAL else None


def record(_chain, context, response):
    """A finalizer of the gateway: also of calls that LocalStack refused."""
    if _file is None or not context.operation:
        return
    call = context.get("kup_call")
    error = context.get("service_exception")
    status = None if call and call.lost else response.status_code
    line = {
        "n": call and call.number,
        "time": round(call.begun if call else time.time(), 4),
        "took": round(time.time() - call.begun, 4) if call else 0,
        "service": context.service.service_name,
        "action": context.operation.name,
        "nth": call and call.nth,
        "region": context.region,
        "mutates": not context.operation.name.startswith(settings.READS),
        "parameters": {name: shown(name, value, context) for name, value in (context.service_request or {}).items()},
        "status": status,
        "code": getattr(error, "code", None) if status is None or status >= 300 else None,
        "request": context.request_id,
        "fault": call and call.fault,
        "machine": machine_of(context),
    }
    text = json.dumps(line, default=str) + "\n"
    with _lock:
        _file.write(text)


def machine_of(context) -> str | None:
    from localstack.utils.aws.request_context import extract_access_key_id_from_auth_header

    from kup_cloud import credentials

    holder = credentials.holder_of(extract_access_key_id_from_auth_header(context.request.headers) or "")
    return holder and holder.session_name


def shown(name, value, context):
    if isinstance(value, dict):
        return {key: shown(key, v, context) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(name, v, context) for v in value]
    if hasattr(value, "read"):
        return body_of(context)
    if isinstance(value, str) and (name.lower() in SECRET or len(value) > LONG):
        return digest(value.encode())
    if isinstance(value, bytes):
        return digest(value)
    return value


def digest(value: bytes) -> dict:
    return {"length": len(value), "sha256": hashlib.sha256(value).hexdigest()}


def body_of(context) -> dict:
    """What was sent, from where the server keeps it, since the service has read it already."""
    request = context.request.environ.get("kup.request")
    content = getattr(request, "content", None)
    if content is None or content.closed:
        return {"length": context.request.content_length}
    content.seek(0, 2)
    if content.tell() > HASHED:
        return {"length": context.request.content_length}
    content.seek(0)
    sent = content.read()
    if "aws-chunked" in (context.request.headers.get("Content-Encoding") or ""):
        sent = unchunked(sent)
    return digest(sent)


def unchunked(sent: bytes) -> bytes:
    """aws-chunked: a line with the size of each piece in hexadecimal digits and what else there is to say of it, and the piece."""
    whole = b""
    while sent:
        head, _, sent = sent.partition(b"\r\n")
        try:
            size = int(head.split(b";")[0], 16)
        except ValueError:
            break
        if size == 0:
            break
        whole, sent = whole + sent[:size], sent[size + 2 :]
    return whole
