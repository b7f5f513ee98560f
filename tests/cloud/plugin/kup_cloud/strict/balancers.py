"""Load balancers that take their time, and whose interfaces hold subnets and groups while they are there and after."""

from kup_cloud import balancer_world, dwell
from kup_cloud.strict import note


def mend():
    balancer_world.leave = leave


def leave(nic):
    if getattr(nic, "kup_leaving", False):
        return
    nic.kup_leaving = True
    dwell.later("balancer interfaces", lambda: nic.id in nic.ec2_backend.enis and nic.delete())


@note("elbv2:CreateLoadBalancer", "elbv2:DeleteLoadBalancer", "elbv2:SetSubnets", "elbv2:SetSecurityGroups")
def interfaces(call, answer):
    balancer_world.settle(call.ec2, call.balancers)
    for said in answer.get("LoadBalancers") or []:
        balancer = call.balancers.load_balancers.get(said["LoadBalancerArn"])
        if balancer is not None:
            said["State"] = {"Code": balancer.state}
