"""Service Quotas: what a new account has of what kup uses, and what this account, which is no new one, was given since."""

from localstack.aws.api import CommonServiceException

NAMES = {"ec2": "Amazon Elastic Compute Cloud (Amazon EC2)", "vpc": "Amazon Virtual Private Cloud (Amazon VPC)"}

QUOTAS = {
    "ec2": [
        ("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 5.0, True),
        ("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", 5.0, True),
        ("L-0263D0A3", "EC2-VPC Elastic IPs", 5.0, True),
    ],
    "vpc": [
        ("L-F678F1CE", "VPCs per Region", 5.0, True),
        ("L-407747CB", "Subnets per VPC", 200.0, True),
        ("L-A4707A72", "Internet gateways per Region", 5.0, True),
        ("L-E79EC296", "VPC security groups per Region", 2500.0, True),
        ("L-2AFB9258", "Security groups per network interface", 5.0, True),
        ("L-0EA8095F", "Inbound or outbound rules per security group", 60.0, True),
    ],
}

# AWS raises the number of virtual CPUs as an account is used.
APPLIED = {"L-1216C47A": 64.0, "L-34B43A08": 64.0}


class NoSuchResource(CommonServiceException):
    def __init__(self):
        super().__init__("NoSuchResourceException", "The request failed because the specified service or quota does not exist.", sender_fault=True)


def quotas(context, service: str, applied: dict[str, float]) -> list[dict]:
    if service not in QUOTAS:
        raise NoSuchResource
    return [
        {
            "ServiceCode": service,
            "ServiceName": NAMES[service],
            "QuotaArn": f"arn:aws:servicequotas:{context.region}:{context.account_id}:{service}/{code}",
            "QuotaCode": code,
            "QuotaName": name,
            "Value": applied.get(code, value),
            "Unit": "None",
            "Adjustable": adjustable,
            "GlobalQuota": False,
        }
        for code, name, value, adjustable in QUOTAS[service]
    ]


def get(context, request, applied=APPLIED, **_):
    for quota in quotas(context, request["ServiceCode"], applied):
        if quota["QuotaCode"] == request["QuotaCode"]:
            return {"Quota": quota}
    raise NoSuchResource


def get_default(context, request, **_):
    return get(context, request, {})


def list_(context, request, applied=APPLIED, **_):
    found = quotas(context, request["ServiceCode"], applied)
    start, size = int(request.get("NextToken") or 0), int(request.get("MaxResults") or 100)
    answer = {"Quotas": found[start : start + size]}
    if start + size < len(found):
        answer["NextToken"] = str(start + size)
    return answer


def list_defaults(context, request, **_):
    return list_(context, request, {})


HANDLERS = {
    "GetServiceQuota": get,
    "GetAWSDefaultServiceQuota": get_default,
    "ListServiceQuotas": list_,
    "ListAWSDefaultServiceQuotas": list_defaults,
}
