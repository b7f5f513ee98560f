"""Network load balancers as the runner is to make them, and what it says of their targets' health.

A balancer has a node in each of its subnets, with an interface of its own there, as in AWS.
"""

import functools

from localstack.utils.patch import patch

# Target group, target and port, as one word -> state, reason, description.
HEALTH: dict[str, list] = {}

INITIAL = ["initial", "Elb.RegistrationInProgress", "Target registration is in progress"]
UNUSED = ["unused", "Target.NotInUse", "Target group is not configured to receive traffic from the load balancer"]


def ours(elb):
    return [balancer for balancer in list(elb.load_balancers.values()) if balancer.type == "network"]


def settle(ec2, elb):
    """Gives balancers the interfaces that they lack, takes those of balancers and subnets that are gone, and keeps groups the same."""
    wanted = {(balancer.arn, subnet.id): (balancer, subnet) for balancer in ours(elb) for subnet in balancer.subnets}
    there = {nic.kup_node: nic for nic in list(ec2.enis.values()) if hasattr(nic, "kup_node")}
    for key, nic in there.items():
        if key not in wanted:
            leave(nic)
    for key, (balancer, subnet) in wanted.items():
        nic = there.get(key)
        if nic is None:
            words = balancer.arn.split("loadbalancer/", 1)[1]
            nic = ec2.create_network_interface(subnet, None, group_ids=list(balancer.security_groups or []), description=f"ELB {words}")
            nic.kup_node = key
            nic.requester_managed, nic.requester_id, nic.interface_type = True, "amazon-elb", "network_load_balancer"
            nic.status = "in-use"
            if balancer.scheme == "internet-facing":
                nic.public_ip_auto_assign = True
                nic.check_auto_public_ip()
        # One that was made without any has none, where the interface would have the VPC's default.
        nic._group_set = [group for group in (ec2.get_security_group_from_id(id) for id in balancer.security_groups or []) if group]


def leave(nic):
    """Takes an interface that no balancer needs any more."""
    nic.delete()


def add(seen, ec2, elb):
    from kup_cloud.world import endpoint_of, need_region

    nodes = [nic for nic in list(ec2.enis.values()) if hasattr(nic, "kup_node")]
    if not nodes:
        return
    need_region(seen, elb.region_name, ec2)
    groups = {}
    for balancer in ours(elb):
        mine = {}
        for nic in nodes:
            if nic.kup_node[0] == balancer.arn:
                seen["endpoints"][nic.id] = endpoint_of(ec2, nic, nic.public_ip) | {"open": not balancer.security_groups}
                mine[nic.id] = nic.subnet.availability_zone
        listeners = {}
        for listener in list(balancer.listeners.values()):
            for action in listener.default_actions:
                for arn in targets_of(action.data):
                    listeners[str(listener.port)] = {"protocol": listener.protocol, "targets": arn}
                    groups[arn] = elb.target_groups.get(arn)
        cross = str(balancer.attrs.get("load_balancing.cross_zone.enabled", "false")) == "true"
        public = balancer.scheme == "internet-facing"
        seen["balancers"][balancer.arn] = {"name": balancer.dns_name, "nodes": mine, "listeners": listeners, "cross": cross, "public": public, "vpc": balancer.vpc_id}
    for arn, group in groups.items():
        if group:
            seen["targets"][arn] = group_of(ec2, group)


def targets_of(action: dict) -> list[str]:
    forward = action.get("ForwardConfig") or {}
    several = [entry["TargetGroupArn"] for entry in forward.get("TargetGroups") or []]
    return several or [arn for arn in [action.get("TargetGroupArn")] if arn]


def group_of(ec2, group) -> dict:
    targets = []
    for target in list(group.targets.values()):
        id, port = target["Id"], int(target["Port"] or group.port)
        address, zone = id, None
        if id.startswith("i-"):
            instance = ec2.get_instance_by_id(id)
            address = instance.private_ip if instance and instance.state in ("pending", "running") else None
            zone = instance.nics[0].subnet.availability_zone if instance else None
        else:
            zone = next((nic.subnet.availability_zone for nic in list(ec2.enis.values()) if nic.private_ip_address == id and nic.vpc_id == group.vpc_id), None)
        targets.append({"id": id, "port": port, "address": address, "zone": zone})
    matcher = (getattr(group, "matcher", None) or {}).get("HttpCode") or "200-399"
    return {
        "targets": targets,
        # The group's own word on zones, if it has one, is what counts.
        "cross": {"true": True, "false": False}.get(str(group.attributes.get("load_balancing.cross_zone.enabled"))),
        "check": {
            "protocol": group.health_check_protocol,
            "port": None if group.health_check_port in (None, "traffic-port") else int(group.health_check_port),
            "path": group.health_check_path or "/",
            "interval": float(group.health_check_interval_seconds),
            "timeout": float(group.health_check_timeout_seconds),
            "healthy": int(group.healthy_threshold_count),
            "unhealthy": int(group.unhealthy_threshold_count),
            # A network balancer's own, where moto has that of others.
            "codes": "200-399" if matcher == "200" else matcher,
        },
    }


def key_of(arn, id, port) -> str:
    return f"{arn} {id} {port}"


@functools.cache
def mend():
    from moto.elbv2.models import FakeHealthStatus, FakeTargetGroup

    @patch(FakeTargetGroup.health_for)
    def health_for(original, self, target, ec2_backend):
        said = original(self, target, ec2_backend)
        if said.status == "healthy":
            # None of the runner's checks has ended yet, or there is nobody to send traffic to it.
            state = HEALTH.get(key_of(self.arn, said.instance_id, said.port)) or (INITIAL if self.load_balancer_arns else UNUSED)
            return FakeHealthStatus(said.instance_id, said.port, said.health_check_port, *state)
        return said
