"""All that machines are to be made of, read from the services' state: instances, interfaces, groups, volumes, balancers.

The runner (tests/cloud/machines) gets it as JSON at each change, and makes the machines so.
"""

import base64
import datetime

from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends
from moto.iam.models import iam_backends

from kup_cloud import balancer_world, credentials

# Instances that have a machine, running or not.
KEPT = ("pending", "running", "stopping", "stopped", "shutting-down")


def world() -> dict:
    seen = {"vpcs": {}, "endpoints": {}, "groups": {}, "instances": {}, "volumes": {}, "balancers": {}, "targets": {}}
    for account, regions in list(ec2_backends.items()):
        for region, backend in list(regions.items()):
            add_region(seen, account, region, backend)
    for account, regions in list(elbv2_backends.items()):
        for backend in list(regions.values()):
            balancer_world.add(seen, ec2_backends[account][backend.region_name], backend)
    return seen


def add_region(seen, account, region, backend):
    instances = [i for i in backend.all_instances() if i.state in KEPT]
    if not instances and not backend.volumes:
        # Its default VPC alone is no reason to say anything.
        return
    need_region(seen, region, backend)
    public = public_addresses(backend)
    for instance in instances:
        nic = instance.nics.get(0)
        if nic is None or nic.subnet is None:
            continue
        hops = instance.metadata_options.http_put_response_hop_limit
        seen["endpoints"][nic.id] = endpoint_of(backend, nic, public.get(nic.id)) | {"hops": hops}
        seen["instances"][instance.id] = instance_of(backend, account, region, instance, nic)
    for volume in list(backend.volumes.values()):
        attachment = volume.attachment
        holder = attachment.instance if attachment else None
        if holder and attachment.device == holder.root_device_name:
            # The machine's own disk.
            continue
        at = {"instance": holder.id, "device": attachment.device} if holder and holder.state in KEPT else None
        seen["volumes"][volume.id] = {"size": int(volume.size), "attached": at}


def need_region(seen, region, backend):
    """What interfaces in it are about."""
    for vpc in list(backend.vpcs.values()):
        seen["vpcs"][vpc.id] = {"ranges": ranges_of(vpc), "region": region}
    for groups in list(backend.groups.values()):
        for group in list(groups.values()):
            seen["groups"][group.id] = {"vpc": group.vpc_id, "in": rules_of(group.ingress_rules), "out": rules_of(group.egress_rules)}


def ranges_of(vpc) -> list[str]:
    return list(dict.fromkeys([vpc.cidr_block, *(a["cidr_block"] for a in vpc.cidr_block_association_set)]))


def rules_of(rules) -> list[dict]:
    found = []
    for rule in rules:
        source = rule.ip_range.get("CidrIp") or rule.source_group.get("GroupId")
        if source:
            found.append({"protocol": str(rule.ip_protocol), "from": rule.from_port, "to": rule.to_port, "with": source})
    return sorted(found, key=lambda rule: [str(value) for value in rule.values()])


def public_addresses(backend) -> dict[str, str]:
    """Each interface's public address: an Elastic one before one that it was given by itself."""
    elastic = {address.public_ip: address.eni.id for address in backend.addresses if address.eni}
    owned = {address.public_ip for address in backend.addresses}
    found = {nic.id: nic.public_ip for nic in list(backend.enis.values()) if nic.public_ip and nic.public_ip not in owned}
    return found | {nic: address for address, nic in elastic.items()}


def endpoint_of(backend, nic, public) -> dict:
    return {
        "vpc": nic.subnet.vpc_id,
        "range": nic.subnet.cidr_block,
        "address": nic.private_ip_address,
        "mac": nic.mac_address,
        "groups": sorted({group.id for group in nic._group_set}),
        "public": public,
        "internet": internet_of(backend, nic.subnet) if public else [],
        "checked": bool(nic.source_dest_check),
    }


def internet_of(backend, subnet) -> list[str]:
    """The ranges that the subnet's route table sends to an internet gateway."""
    tables = [table for table in backend.route_tables.values() if table.vpc_id == subnet.vpc_id]
    own = [table for table in tables if subnet.id in table.associations.values()] or [t for t in tables if t.main_association_id]
    found = []
    for table in own[:1]:
        for route in table.routes.values():
            gateway = backend.internet_gateways.get(getattr(route.gateway, "id", None))
            attached = getattr(gateway, "vpc", None)
            if attached and attached.id == subnet.vpc_id and route.destination_cidr_block:
                found.append(route.destination_cidr_block)
    return sorted(found)


def instance_of(backend, account, region, instance, nic) -> dict:
    key = backend.key_pairs.get(instance.key_name)
    options = instance.metadata_options
    association = backend.iam_instance_profile_associations.get(instance.id)
    return {
        # What a machine is to be: a stopped one keeps its disk, and a machine that is asked to start anew is another one than before.
        "running": instance.state in ("pending", "running"),
        "turn": getattr(instance, "kup_turn", 0),
        "on_shutdown": instance.instance_initiated_shutdown_behavior,
        "endpoint": nic.id,
        "vpc": nic.subnet.vpc_id,
        "subnet": nic.subnet.id,
        "account": account,
        "region": region,
        "zone": instance.placement.zone if hasattr(instance.placement, "zone") else nic.subnet.availability_zone,
        "type": instance.instance_type,
        "image": instance.image_id,
        "architecture": instance.architecture,
        "root": instance.root_device_name,
        "disks": sorted(device.removeprefix("/dev/") for device, _ in instance.get_block_device_mapping if device != instance.root_device_name),
        "launched": instance.launch_time.replace(tzinfo=datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "reservation": next((r.id for r in backend.reservations.values() if instance in r.instances), ""),
        "groups": sorted({group.name for group in nic._group_set}),
        "group_ids": sorted({group.id for group in nic._group_set}),
        "key_name": instance.key_name,
        "key": key.public_key.strip() if key else None,
        "user_data": encoded(instance.user_data),
        "tags": {tag["key"]: tag["value"] for tag in instance.get_tags()},
        "lifecycle": instance.lifecycle or "on-demand",
        "metadata": {
            "enabled": options.http_endpoint == "enabled",
            "tokens": options.http_tokens == "required",
            "tags": options.instance_metadata_tags == "enabled",
        },
        "profile": profile_of(account, association, instance, region),
    }


def encoded(user_data) -> str | None:
    if not user_data:
        return None
    text = user_data if isinstance(user_data, bytes) else str(user_data).encode()
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        text = base64.b64encode(text)
    return text.decode()


def profile_of(account, association, instance, region) -> dict | None:
    if association is None:
        return None
    name = association.iam_instance_profile.name
    profile = iam_backends[account]["aws"].instance_profiles.get(name)
    # Looked up anew: a role may come into it later.
    if profile is None:
        profile = next((p for p in iam_backends[account]["aws"].instance_profiles.values() if p.name == name), None)
    if profile is None:
        return None
    role = profile.roles[0] if profile.roles else None
    return {
        "arn": profile.arn,
        "id": profile.id,
        "role": role.name if role else None,
        "credentials": credentials.of(account, region, role.arn, instance.id) if role else None,
    }
