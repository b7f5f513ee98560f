"""Both emulators, started once, and what the tests share. Each test is run against each backend.

A test marked `lacks(moto="...")` is expected to fail there, for that reason: if it passes, that is a failure too, and README.md is to
be changed with the mark.
"""

import itertools
import os
import pathlib
import socket
import subprocess

import boto3
import botocore.config
import pytest
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

    def __init__(self, backend, port, state):
        self.backend, self.port, self.state = backend, port, state
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


@pytest.fixture(scope="session")
def state(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session", params=BACKENDS)
def aws(request, state):
    port = free_port()
    emulator("start", "--backend", request.param, "--port", port, state=state)
    yield Emulated(request.param, port, state)
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


@pytest.fixture
def network(aws, name):
    return Network(aws.client("ec2"), name)


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
