"""Both emulators, started once, and what the tests share. Each test is run against each backend.

A test marked `lacks(moto="...")` is expected to fail there, for that reason: if it passes, that is a failure too, and README.md is to
be changed with the mark.
"""

import contextlib
import itertools
import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.request

import boto3
import botocore.config
import pytest
from botocore.exceptions import ClientError
from estate import Cloud, Estate, Machines, make_profile

ROOT = pathlib.Path(__file__).resolve().parents[3]
EMULATOR = ROOT / "scripts" / "aws-emulator"
BACKENDS = ["localstack", "moto"]
REGION = "us-west-2"


def emulator(*words, state, check=True):
    """Runs the script with a state directory of its own, so that no emulator of the user's is touched."""
    # Without what the caller's shell says of AWS.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")} | {"XDG_STATE_HOME": str(state)}
    return subprocess.run([EMULATOR, *map(str, words)], env=environment, check=check, capture_output=True, text=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Emulated:
    """A running emulator, as a client sees it."""

    def __init__(self, backend, port, state, profile="lenient"):
        self.backend, self.port, self.state, self.profile = backend, port, state, profile
        said = self.script("env").stdout
        lines = subprocess.run(
            ["bash", "-c", 'eval "$1" && env -0', "bash", said], env={"PATH": os.environ["PATH"]}, check=True, capture_output=True
        ).stdout
        self.environment = dict(line.split("=", 1) for line in lines.decode().split("\0") if line)

    def script(self, verb, *words, check=True):
        return emulator(verb, "--port", self.port, *words, state=self.state, check=check)

    def client(self, service, region=REGION):
        e = self.environment
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=e["AWS_ENDPOINT_URL"],
            aws_access_key_id=e["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=e["AWS_SECRET_ACCESS_KEY"],
            config=botocore.config.Config(retries={"total_max_attempts": 1}),
        )

    @contextlib.contextmanager
    def refuses(self, **codes):
        """The call in it ends with the code that is given for this profile, and where there is none it does what it is to do."""
        code = codes.get(self.profile)
        if code is None:
            yield
            return
        with pytest.raises(ClientError) as refused:
            yield
        assert refused.value.response["Error"]["Code"] == code, refused.value

    def control(self, method, path, said=None):
        """The answer of the emulator's own address for tests."""
        request = urllib.request.Request(
            f"{self.environment['AWS_ENDPOINT_URL']}/_kup/{path}", method=method, data=None if said is None else json.dumps(said).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def calls(self, **like):
        """Those of the journal that are so."""
        lines = [json.loads(line) for line in self.script("journal").stdout.splitlines()]
        return [line for line in lines if all(line[key] == value for key, value in like.items())]


def eventually(what, seconds=20, pause=0.05):
    """Waits until it holds."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "this did not come to be"
        time.sleep(pause)
    return value


@pytest.fixture(scope="session")
def state(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session", params=BACKENDS)
def aws(request, state):
    port = free_port()
    emulator("start", "--backend", request.param, "--port", port, state=state)
    yield Emulated(request.param, port, state)
    emulator("stop", "--port", port, state=state)


# How much of AWS's waiting times the tests of its rules wait.
TIME_SCALE = 0.01


@pytest.fixture(scope="session", params=["lenient", "strict"])
def both(request, state):
    """LocalStack as it is, and with AWS's rules: what the first allows and the second refuses."""
    port = free_port()
    scale = ["--time-scale", TIME_SCALE] if request.param == "strict" else []
    emulator("start", "--profile", request.param, *scale, "--port", port, state=state)
    yield Emulated("localstack", port, state, request.param)
    emulator("stop", "--port", port, state=state)


@pytest.fixture(scope="session")
def cloud(state, tmp_path_factory):
    """One with machines, which all of their tests share: each machine takes a while to boot."""
    port = free_port()
    emulator("start", "--machines", "--port", port, state=state)
    yield Cloud(Emulated("localstack", port, state), tmp_path_factory.mktemp("c"))
    emulator("stop", "--port", port, state=state)


@pytest.fixture(scope="session")
def estate(cloud):
    return Estate(cloud, "estate")


@pytest.fixture(scope="session")
def machine_profile(cloud):
    """An instance profile with what a minion's has: a bucket, and a part of it that is denied."""
    make_profile(cloud)
    return "minion"


@pytest.fixture(scope="session")
def machines(cloud, estate, machine_profile):
    """Two in one subnet, one in another, each with a group of its own, and one without a public address; booted together."""
    return Machines(cloud, estate, machine_profile)


def pytest_configure(config):
    config.addinivalue_line("markers", "lacks(backend=reason): what a backend can't do")


def pytest_collection_modifyitems(items):
    for item in items:
        backend = getattr(item, "callspec", None) and item.callspec.params.get("aws")
        for mark in item.iter_markers("lacks"):
            if backend in mark.kwargs:
                item.add_marker(pytest.mark.xfail(strict=True, reason=mark.kwargs[backend]))


_numbers = itertools.count(1)


@pytest.fixture
def name():
    """A name that no other test has."""
    return f"kup-test-{next(_numbers)}"


class Network:
    def __init__(self, ec2, name, zones="ab"):
        self.ec2 = ec2
        self.vpc = ec2.create_vpc(CidrBlock="172.20.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"172.20.{i}.0/24", AvailabilityZone=REGION + zone)["Subnet"]["SubnetId"]
            for i, zone in enumerate(zones)
        ]
        self.group = ec2.create_security_group(GroupName=name, Description="a test's", VpcId=self.vpc)["GroupId"]
        self.name = name

    def new_group(self, name):
        return self.ec2.create_security_group(GroupName=f"{self.name}-{name}", Description="a test's", VpcId=self.vpc)["GroupId"]

    def gateway(self):
        id = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=id, VpcId=self.vpc)
        return id

    def interface(self, **more):
        return self.ec2.create_network_interface(SubnetId=self.subnets[0], Groups=[self.group], **more)["NetworkInterface"]["NetworkInterfaceId"]

    def run(self, image, **more):
        given = {"ImageId": image, "InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1}
        given |= {} if "NetworkInterfaces" in more else {"SubnetId": self.subnets[0], "SecurityGroupIds": [self.group]}
        while True:
            try:
                return self.ec2.run_instances(**given | more)["Instances"][0]["InstanceId"]
            except ClientError as error:
                # Launches are few, and tests make many.
                if error.response["Error"]["Code"] != "RequestLimitExceeded":
                    raise
                time.sleep(0.5)

    def state(self, instance):
        return self.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]["State"]["Name"]

    def remove(self):
        """With all that is in it, in whatever order it takes, as long as it takes."""
        ec2, here = self.ec2, [{"Name": "vpc-id", "Values": [self.vpc]}]

        def all_(call, key, **of):
            return [one for page in ec2.get_paginator(call).paginate(**of) for one in page[key]]

        found = [i for r in all_("describe_instances", "Reservations", Filters=here) for i in r["Instances"]]
        alive = [i["InstanceId"] for i in found if i["State"]["Name"] != "terminated"]
        if alive:
            ec2.terminate_instances(InstanceIds=alive)
        steps = []
        for address in ec2.describe_addresses()["Addresses"]:
            if "AssociationId" in address:
                steps.append(lambda id=address["AssociationId"]: ec2.disassociate_address(AssociationId=id))
            steps.append(lambda id=address["AllocationId"]: ec2.release_address(AllocationId=id))
        for nic in all_("describe_network_interfaces", "NetworkInterfaces", Filters=here):
            steps.append(lambda id=nic["NetworkInterfaceId"]: ec2.delete_network_interface(NetworkInterfaceId=id))
        for gateway in all_("describe_internet_gateways", "InternetGateways", Filters=[{"Name": "attachment.vpc-id", "Values": [self.vpc]}]):
            id = gateway["InternetGatewayId"]
            steps.append(lambda id=id: ec2.detach_internet_gateway(InternetGatewayId=id, VpcId=self.vpc))
            steps.append(lambda id=id: ec2.delete_internet_gateway(InternetGatewayId=id))
        groups = [group for group in all_("describe_security_groups", "SecurityGroups", Filters=here) if group["GroupName"] != "default"]
        for group in groups:
            if group["IpPermissions"]:
                ec2.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=group["IpPermissions"])
        steps += [lambda id=id: ec2.delete_subnet(SubnetId=id) for id in self.subnets]
        steps += [lambda id=group["GroupId"]: ec2.delete_security_group(GroupId=id) for group in groups]
        steps.append(lambda: ec2.delete_vpc(VpcId=self.vpc))

        def nothing_left():
            # Those that were done are not asked for again: AWS counts calls.
            steps[:] = [step for step in steps if not self.done(step)]
            return not steps

        eventually(nothing_left, pause=0.2)

    @staticmethod
    def done(step):
        try:
            step()
        except ClientError as error:
            return "NotFound" in error.response["Error"]["Code"] or error.response["Error"]["Code"] == "Gateway.NotAttached"
        return True


@pytest.fixture
def network(aws, name):
    return Network(aws.client("ec2"), name)


@pytest.fixture
def own(both, name):
    """A network that is removed in the end, since an account may have few."""
    network = Network(both.client("ec2"), name)
    yield network
    network.remove()


@pytest.fixture(scope="session")
def debian(both):
    return both.client("ssm").get_parameter(Name="/aws/service/debian/release/13/latest/amd64")["Parameter"]["Value"]


@pytest.fixture
def image(aws):
    """An image that both backends have."""
    return aws.client("ssm").get_parameter(Name="/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64")["Parameter"]["Value"]


@pytest.fixture
def profile(aws, name):
    iam = aws.client("iam")
    iam.create_role(
        RoleName=name,
        Path="/kup/us-west-2/test/",
        AssumeRolePolicyDocument='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}',
    )
    arn = iam.create_instance_profile(InstanceProfileName=name, Path="/kup/us-west-2/test/")["InstanceProfile"]["Arn"]
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    return arn


def tags(**of):
    return [{"Key": k, "Value": v} for k, v in of.items()]


def tagged(resource):
    """Tags as a dict, without AWS's own."""
    return {t["Key"]: t["Value"] for t in resource.get("Tags", resource.get("TagSet", [])) if not t["Key"].startswith("aws:")}
