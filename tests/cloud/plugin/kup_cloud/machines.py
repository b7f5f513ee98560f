"""The plugin's half of `start --machines`: tells the runner what is wanted, hears what is, and lets the API say so.

The two talk through a socket in the directory that KUP_MACHINES names: a line of JSON for each world, and one for each report.
"""

import base64
import ipaddress
import itertools
import json
import logging
import os
import pathlib
import socket
import threading

from localstack.aws import handlers
from localstack.runtime import hooks
from localstack.utils.patch import patch

LOG = logging.getLogger(__name__)

DIRECTORY = os.environ.get("KUP_MACHINES")
# Services whose calls change machines, and calls that change nothing.
SERVICES = {"ec2", "autoscaling", "elbv2", "iam"}
READS = ("Describe", "Get", "List", "Search", "Simulate")
# As much of a console as AWS keeps.
CONSOLE = 64 * 1024


@hooks.on_runtime_create(should_load=bool(DIRECTORY))
def attach():
    import moto.ec2.models
    import moto.elbv2.models
    import moto.iam.models

    from kup_cloud import access, balancer_world, dwell

    mend()
    balancer_world.mend()
    connection = Connection(os.path.join(DIRECTORY, "world.sock"))

    def changed(_chain, context, _response):
        operation = context.operation.name if context.operation else ""
        service = context.service.service_name if context.service else None
        if service in SERVICES and not operation.startswith(READS):
            if service == "elbv2":
                balancer_world.settle(
                    moto.ec2.models.ec2_backends[context.account_id][context.region], moto.elbv2.models.elbv2_backends[context.account_id][context.region]
                )
            connection.tell()

    handlers.run_custom_finalizers.append(changed)
    dwell.listeners.append(connection.tell)
    handlers.serve_custom_service_request_handlers.append(access.check)


class Connection:
    """The socket's server: the runner comes, and is told the world at once and at each change."""

    def __init__(self, path):
        self.change = threading.Condition()
        self.number = 1
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        threading.Thread(target=self.accept, args=[listener], daemon=True).start()

    def tell(self):
        with self.change:
            self.number += 1
            self.change.notify_all()

    def accept(self, listener):
        while True:
            runner, _ = listener.accept()
            threading.Thread(target=self.hear, args=[runner], daemon=True).start()
            threading.Thread(target=self.say, args=[runner], daemon=True).start()

    def say(self, runner):
        told = 0
        while True:
            with self.change:
                # Credentials are renewed though nothing else changes.
                self.change.wait_for(lambda: self.number != told, timeout=60)
                told = self.number
            try:
                line = json.dumps(settled()).encode() + b"\n"
            except Exception:
                LOG.exception("the machines' state could not be read")
                continue
            try:
                runner.sendall(line)
            except OSError:
                return

    def hear(self, runner):
        for line in runner.makefile("rb"):
            try:
                if report(json.loads(line)):
                    self.tell()
            except Exception:
                LOG.exception("a report could not be taken in: %s", line)
        with self.change:
            self.change.notify_all()


def settled():
    """The world, read again where it changed under the reader's hands."""
    # Only now: it loads all of moto's services.
    from kup_cloud.world import world

    for _ in range(50):
        try:
            return world()
        except RuntimeError as e:
            problem = e
    raise problem


def report(said) -> bool:
    """Takes in what became of a machine; whether that changes what is wanted."""
    from moto.ec2.models import ec2_backends

    if "health" in said:
        from kup_cloud import balancer_world

        balancer_world.HEALTH.clear()
        balancer_world.HEALTH.update(said["health"])
        return False
    backend = ec2_backends[said["account"]][said["region"]]
    instance = next((i for i in backend.all_instances() if i.id == said["instance"]), None)
    # What was meant for an earlier start says nothing of this one.
    if instance is None or getattr(instance, "kup_turn", 0) != said["turn"]:
        return False
    if said["state"] == "running" and instance.state == "pending":
        instance._state.name, instance._state.code = "running", 16
    elif said["state"] == "stopped" and instance.state in ("pending", "running"):
        instance.stop()
        return True
    return False


def mend():
    import moto.ec2.models.elastic_ip_addresses as elastic
    import moto.ec2.models.elastic_network_interfaces as interfaces
    from moto.ec2.models.elastic_ip_addresses import ElasticAddressBackend
    from moto.ec2.models.elastic_network_interfaces import NetworkInterfaceBackend
    from moto.ec2.models.instances import Instance, InstanceBackend
    from moto.ec2.models.subnets import Subnet
    from moto.ec2.responses.general import General

    elastic.random_ip = interfaces.random_public_ip = public_addresses(os.environ["KUP_MACHINES_RANGE"])

    # moto's own are none: they have letters beyond f.
    interfaces.random_mac_address = lambda: ":".join(["02", *(f"{byte:02x}" for byte in os.urandom(5))])

    @patch(InstanceBackend.run_instances)
    def run_instances(original, self, *args, **given):
        reservation = original(self, *args, **given)
        for instance in reservation.instances:
            pending(instance)
        return reservation

    @patch(Instance.start)
    def start(original, self):
        was = self.state
        before = original(self)
        if was != "running":
            pending(self)
        return before

    @patch(Instance.reboot)
    def reboot(original, self):
        original(self)
        self.kup_turn = getattr(self, "kup_turn", 0) + 1

    @patch(InstanceBackend.modify_instance_metadata_options)
    def metadata(original, self, instance_id, **given):
        """What isn't named stays: moto would forget it."""
        now = self.get_instance(instance_id).metadata_options
        kept = {
            "http_tokens": now.http_tokens,
            "hop_limit": now.http_put_response_hop_limit,
            "http_endpoint": now.http_endpoint,
            "http_protocol": now.http_protocol_ipv6,
            "metadata_tags": now.instance_metadata_tags,
        }
        return original(self, instance_id, **kept | {name: value for name, value in given.items() if value is not None})

    @patch(Subnet.get_available_subnet_ip)
    def free_address(original, self, instance):
        """moto counts those that it gave out itself, and not those that interfaces were made with."""
        taken = {nic.private_ip_address for nic in self.ec2_backend.enis.values() if nic.subnet is self}
        while (address := original(self, instance)) in taken:
            pass
        return address

    @patch(NetworkInterfaceBackend.create_network_interface)
    def create_interface(original, self, subnet, private_ip_address, *args, **given):
        """The subnet's next address, where moto takes any, be it another interface's."""
        if not private_ip_address and not given.get("private_ip_addresses"):
            private_ip_address = (self.get_subnet(subnet) if isinstance(subnet, str) else subnet).get_available_subnet_ip(None)
        return original(self, subnet, private_ip_address, *args, **given)

    @patch(ElasticAddressBackend.associate_address)
    def associate(original, self, *args, **given):
        """An address leaves the interface that it had, and takes the place of the one that its new interface had."""
        before = {address: address.eni for address in self.addresses}
        address = original(self, *args, **given)
        previous = before[address]
        if previous is not None and previous is not address.eni and previous.public_ip == address.public_ip:
            previous.public_ip = None
        for other, nic in before.items():
            if other is not address and nic is not None and nic is address.eni:
                other.eni = other.instance = other.association_id = None
        return address

    def console(self):
        from moto.core.responses import ActionResult
        from moto.core.utils import utcnow

        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        output = base64.b64encode(console_of(instance.id)).decode()
        return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": output})

    General.get_console_output = console


def pending(instance):
    instance._state.name, instance._state.code = "pending", 0
    instance.kup_turn = getattr(instance, "kup_turn", 0) + 1


def public_addresses(range_):
    """Gives one after the other out of the range, and none twice as long as there are others. The first are the emulator's own."""
    hosts = [str(address) for address in ipaddress.ip_network(range_)][16:-1]
    following = itertools.cycle(hosts)
    return lambda: next(following)


def console_of(instance: str) -> bytes:
    """The end of what a machine wrote to its console: its engine's log, of which each line has a head and says if it is a whole one."""
    try:
        log = (pathlib.Path(DIRECTORY) / "instances" / instance / "console.log").read_bytes()
    except FileNotFoundError:
        return b""
    text = b""
    for line in log[-3 * CONSOLE :].split(b"\n")[1 if len(log) > 3 * CONSOLE else 0 :]:
        parts = line.split(b" ", 3)
        if len(parts) == 4:
            text += parts[3] + (b"" if parts[2] == b"P" else b"\n")
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")[-CONSOLE:]
