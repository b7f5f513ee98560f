"""Instances, volumes, gateways and balancers that are not at once what they are to be."""

import copy
import functools

from localstack.utils.patch import patch

from kup_cloud import dwell, settings
from kup_cloud.strict import note

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}


def become(instance, state):
    instance._state.name, instance._state.code = state, CODES[state]


@functools.cache
def mend():
    from moto.ec2.models.elastic_block_store import Volume
    from moto.ec2.models.instances import Instance, InstanceBackend
    from moto.elbv2.models import ELBv2Backend, FakeLoadBalancer

    @patch(Instance.terminate)
    def terminate(original, self):
        before = copy.copy(self._state)
        if self.state in ("shutting-down", "terminated"):
            return before
        become(self, "shutting-down")

        def ended():
            if self.state == "shutting-down":
                original(self)
                dwell.later("forgotten", lambda: forget(self))

        dwell.later("terminated", ended)
        return before

    Volume.status = property(lambda volume: "in-use" if volume.attachment else "creating" if getattr(volume, "kup_creating", False) else "available")

    @patch(ELBv2Backend.create_load_balancer)
    def create_load_balancer(original, self, **given):
        balancer = original(self, **given)
        balancer.state = "provisioning"
        dwell.later("balancer", lambda: setattr(balancer, "state", "active"))
        return balancer

    # Whoever looks doesn't make it so.
    FakeLoadBalancer.activate = lambda self: None

    if settings.MACHINES:
        # Those say themselves when they run, and when they have stopped.
        return

    @patch(InstanceBackend.run_instances)
    def run_instances(original, self, *args, **given):
        reservation = original(self, *args, **given)
        for instance in reservation.instances:
            starts(instance)
        return reservation

    @patch(Instance.start)
    def start(original, self):
        if self.state != "stopped":
            return copy.copy(self._state)
        before = original(self)
        starts(self)
        return before

    @patch(Instance.stop)
    def stop(original, self):
        before = copy.copy(self._state)
        if self.state not in ("running", "pending"):
            return before
        become(self, "stopping")

        def stopped():
            if self.state == "stopping":
                original(self)

        dwell.later("stopped", stopped)
        return before


def forget(instance):
    reservations = instance.ec2_backend.reservations
    for id, reservation in list(reservations.items()):
        if instance in reservation.instances:
            reservation.instances.remove(instance)
            if not reservation.instances:
                del reservations[id]


def starts(instance):
    become(instance, "pending")

    def runs():
        if instance.state == "pending":
            become(instance, "running")

    dwell.later("running", runs)


@note("ec2:CreateVolume")
def volume(call, answer):
    made = call.ec2.volumes.get(answer.get("VolumeId"))
    if made is not None:
        made.kup_creating, answer["State"] = True, "creating"
        dwell.later("volume", lambda: setattr(made, "kup_creating", False))


@note("ec2:CreateNatGateway")
def gateway(call, answer):
    made = call.ec2.nat_gateways[answer["NatGateway"]["NatGatewayId"]]
    made.state = answer["NatGateway"]["State"] = "pending"

    def available():
        if made.state == "pending":
            made.state = "available"

    dwell.later("nat gateway", available)


@note("ec2:DeleteNatGateway")
def no_gateway(call, answer):
    ec2 = call.ec2
    made = ec2.nat_gateways.get(call.request.get("NatGatewayId"))
    if made is None:
        return
    made.state = "deleting"

    def deleted():
        made.state = "deleted"
        for address in ec2.addresses:
            if address.eni is made._eni:
                address.eni = address.association_id = None
        ec2.enis.pop(made._eni.id, None)

    dwell.later("nat gateway deleted", deleted)
