"""A network with machines in it, as the tests of `start --machines` share it, and the ways to look into them."""

import subprocess
import time

import pytest
from conftest import REGION, Emulated

SSH = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=2"]
# For what is to become true. A busy machine gets time; nothing passes later because of it.
DEADLINE = 60


def until(what, holds, deadline=DEADLINE):
    """Asks again until it is so, and gives the answer."""
    end = time.monotonic() + deadline
    while not (answer := holds()):
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.1)
    return answer


class Cloud(Emulated):
    """A running emulator with machines."""

    def __init__(self, port, state, directory):
        super().__init__("localstack", port, state)
        self.host = self.environment["KUP_CALLER_ADDRESS"]
        self.endpoint = self.environment["AWS_ENDPOINT_URL"]
        self.key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self.ec2 = self.client("ec2")
        self.ec2.import_key_pair(KeyName="tests", PublicKeyMaterial=self.key.with_suffix(".pub").read_bytes())

    def ssh(self, address, command, check=True, user="admin"):
        done = subprocess.run(["ssh", *SSH, "-i", self.key, f"{user}@{address}", command], capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip() if check else done

    def reachable(self, address):
        return self.ssh(address, "true", check=False).returncode == 0

    def instance(self, id):
        return self.ec2.describe_instances(InstanceIds=[id])["Reservations"][0]["Instances"][0]

    def running(self, id):
        until(f"{id} runs", lambda: self.instance(id)["State"]["Name"] == "running")
        return self.instance(id)

    def log_in(self, id):
        """Waits for a machine that has a public address, and gives that."""
        address = self.running(id)["PublicIpAddress"]
        until(f"SSH on {id}", lambda: self.reachable(address))
        return address

    def console(self, id):
        return self.ec2.get_console_output(InstanceId=id).get("Output", "")


class Estate:
    """A VPC with two subnets that have a way out, and one that has none."""

    def __init__(self, cloud, name):
        ec2 = self.ec2 = cloud.ec2
        self.cloud = cloud
        self.vpc = ec2.create_vpc(CidrBlock="172.20.0.0/16")["Vpc"]["VpcId"]
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=self.vpc)
        self.routes = ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=self.routes, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        self.gateway = gateway
        self.subnets = [
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"172.20.{i}.0/24", AvailabilityZone=REGION + zone)["Subnet"]["SubnetId"] for i, zone in enumerate("aba")
        ]
        for subnet in self.subnets[:2]:
            ec2.associate_route_table(RouteTableId=self.routes, SubnetId=subnet)
        self.group = self.new_group(name)
        self.allow(self.group, "tcp", 22, cloud.host + "/32")

    def new_group(self, name):
        return self.ec2.create_security_group(GroupName=name, Description="a test's", VpcId=self.vpc)["GroupId"]

    @staticmethod
    def permission(protocol, port, source):
        ports = {"FromPort": port, "ToPort": port} if protocol != "-1" else {}
        pair = {"UserIdGroupPairs": [{"GroupId": source}]} if source.startswith("sg-") else {"IpRanges": [{"CidrIp": source}]}
        return [{"IpProtocol": protocol, **ports, **pair}]

    def allow(self, group, protocol, port, source):
        self.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=self.permission(protocol, port, source))

    def revoke(self, group, protocol, port, source):
        self.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=self.permission(protocol, port, source))

    def run(self, subnet=0, groups=None, public=True, **more):
        nic = {"DeviceIndex": 0, "SubnetId": self.subnets[subnet], "Groups": groups or [self.group], "AssociatePublicIpAddress": public}
        given = {"NetworkInterfaces": [nic], "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}} | more
        return self.ec2.run_instances(MinCount=1, MaxCount=1, ImageId="ami-12c6146b", InstanceType="t3.small", KeyName="tests", **given)["Instances"][0]["InstanceId"]

    def terminate(self, *ids):
        if ids:
            self.ec2.terminate_instances(InstanceIds=list(ids))


def names_of(port):
    """Everything on this host that is named after an emulator: containers, their volumes, namespaces, links, routes."""
    def lines(*words):
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()

    found = [line for line in lines("podman", "ps", "-a", "--format={{.Names}}") if line.startswith(f"kup-aws-{port}-")]
    found += [line for line in lines("podman", "volume", "ls", "-q") if line.startswith(f"kup-aws-{port}-")]
    found += [line.split()[0] for line in lines("ip", "netns", "list") if line.startswith(f"kup-aws-{port}")]
    found += [line for line in lines("ip", "-o", "link") + lines("ip", "route") if f"kupaws{port}" in line]
    return found


def loops_of(state):
    listed = subprocess.run(["losetup", "-n", "-l", "-O", "NAME,BACK-FILE"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(state) in line]


needs_machines = pytest.mark.skipif(
    subprocess.run(["sh", "-c", "test $(id -u) = 0 && command -v podman mmdebstrap nft"], capture_output=True).returncode != 0,
    reason="machines need root, podman, mmdebstrap and nft",
)
