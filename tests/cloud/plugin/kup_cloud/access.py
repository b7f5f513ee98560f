"""Roles of machines may do what their policies say, and nothing else. Calls with other keys are the user's own, and may do everything."""

import json
import re

from localstack.aws.api import CommonServiceException
from localstack.utils.aws.request_context import extract_access_key_id_from_auth_header

from kup_cloud import credentials
from kup_cloud.iam import applies, as_json, evaluate, listed, policies_of

# What S3 calls its operations, where its actions have other names.
S3_ACTIONS = {
    "HeadObject": "GetObject",
    "GetObjectRange": "GetObject",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadBucket": "ListBucket",
    "ListBuckets": "ListAllMyBuckets",
    "ListObjectVersions": "ListBucketVersions",
    "DeleteObjects": "DeleteObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
    "CompleteMultipartUpload": "PutObject",
}
SERVICES = {"elbv2": "elasticloadbalancing"}
# These need no permission.
FREE = {("sts", "GetCallerIdentity")}


def check(_chain, context, _response):
    """A handler in the gateway's chain: refuses the call, or lets it on."""
    if not context.service or not context.operation:
        return
    holder = credentials.holder_of(extract_access_key_id_from_auth_header(context.request.headers) or "")
    service, operation = context.service.service_name, context.operation.name
    if holder is None or (service, operation) in FREE:
        return
    from moto.iam.models import iam_backends

    role, facts = holder.role_arn, facts_of(holder)
    documents = policies_of(iam_backends[context.account_id]["aws"], role)
    statements = [(name, s) for name, document in documents for s in listed(filled(document, facts)["Statement"])]
    request = context.service_request or {}
    if service == "s3":
        action, allowed = s3(statements, operation, request, facts)
    else:
        action = f"{SERVICES.get(service, service)}:{operation}"
        allowed = whatever(statements, action)
    if not allowed:
        denied = f"User: {role} is not authorized to perform: {action} because no identity-based policy allows it"
        code = {"s3": "AccessDenied", "ec2": "UnauthorizedOperation"}.get(service, "AccessDenied")
        raise CommonServiceException(code, denied, status_code=403, sender_fault=True)


def facts_of(holder) -> dict[str, str]:
    """What policies may say of who calls, by the names that they have there."""
    instance = f"arn:aws:ec2:{holder.region_name}:{holder.account_id}:instance/{holder.session_name}"
    return {
        "aws:userid": holder.user_id,
        "aws:principalarn": holder.role_arn,
        "aws:principalaccount": holder.account_id,
        "aws:securetransport": "true",
        "ec2:sourceinstancearn": instance,
    }


def filled(document, facts) -> dict:
    """A policy with its variables replaced; one that is not known stays, and so matches nothing."""
    text = json.dumps(as_json(document))
    return json.loads(re.sub(r"\$\{([\w:]+)\}", lambda found: facts.get(found[1].lower(), found[0]), text))


def s3(statements, operation, request, facts) -> tuple[str, bool]:
    versioned = "Version" if request.get("VersionId") and operation in ("GetObject", "DeleteObject", "HeadObject") else ""
    action = f"s3:{S3_ACTIONS.get(operation, operation)}{versioned}"
    bucket = request.get("Bucket", "*")
    keys = [request.get("Key")]
    if operation == "DeleteObjects":
        keys = [entry["Key"] for entry in request["Delete"]["Objects"]]
    values = {"s3:prefix": [request.get("Prefix") or ""]} | {name: [value] for name, value in facts.items()}
    resources = [f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else "") for key in keys]
    return action, all(evaluate(statements, action, resource, values)["EvalDecision"] == "allowed" for resource in resources)


def whatever(statements, action) -> bool:
    """Whether a statement allows the action on anything at all: on what, and under which conditions, is not looked at."""
    return any(s["Effect"] == "Allow" and applies(s, "Action", action.lower()) for _, s in statements)
