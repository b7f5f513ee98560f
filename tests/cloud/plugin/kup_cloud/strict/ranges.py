"""Ranges of addresses as EC2 takes them."""

import ipaddress

from kup_cloud.calls import refuse
from kup_cloud.strict import rule


def parsed(text: str):
    try:
        # What is beyond the prefix is cut off, as EC2 does: "we modify it to 100.68.0.0/18".
        return ipaddress.IPv4Network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def parameter(name: str, text: str):
    if text and parsed(text) is None:
        refuse("InvalidParameterValue", f"Value ({text}) for parameter {name} is invalid. This is not a valid CIDR block.")


@rule("ec2:CreateVpc")
def range_of_a_vpc(call, asked):
    text = asked.get("CidrBlock")
    parameter("cidrBlock", text)
    if text and not 16 <= parsed(text).prefixlen <= 28:
        refuse("InvalidVpc.Range", f"The CIDR '{text}' is invalid.")


@rule("ec2:CreateSubnet")
def range_of_a_subnet(call, asked):
    text, vpc = asked.get("CidrBlock"), call.ec2.vpcs.get(asked.get("VpcId"))
    parameter("cidrBlock", text)
    if not text or vpc is None:
        return
    own = parsed(text)
    around = [parsed(association["cidr_block"]) for association in vpc.cidr_block_association_set]
    if not 16 <= own.prefixlen <= 28 or not any(own.subnet_of(network) for network in around):
        refuse("InvalidSubnet.Range", f"The CIDR '{text}' is invalid.")
    for zone in call.ec2.subnets.values():
        for subnet in zone.values():
            if subnet.vpc_id == vpc.id and parsed(subnet.cidr_block).overlaps(own):
                refuse("InvalidSubnet.Conflict", f"The CIDR '{text}' conflicts with another subnet")


@rule("ec2:CreateRoute", "ec2:ReplaceRoute", "ec2:DeleteRoute")
def range_of_a_route(call, asked):
    parameter("destinationCidrBlock", asked.get("DestinationCidrBlock"))


@rule("ec2:AuthorizeSecurityGroupIngress", "ec2:AuthorizeSecurityGroupEgress")
def range_of_a_rule(call, asked):
    for permission in asked.get("IpPermissions") or []:
        for one in permission.get("IpRanges") or []:
            if parsed(one.get("CidrIp") or "") is None:
                refuse("InvalidParameterValue", f"CIDR block {one.get('CidrIp')} is malformed")
        low, high = permission.get("FromPort"), permission.get("ToPort")
        if permission.get("IpProtocol") in ("tcp", "udp", "6", "17") and low is not None and not 0 <= low <= (high or 0) <= 65535:
            refuse("InvalidParameterValue", f"Invalid value '{low}-{high}' for portRange. Must specify both from and to ports with TCP/UDP.")
