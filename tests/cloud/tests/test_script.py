"""The script itself: what it starts, and that it leaves nothing."""

import difflib
import json
import os
import signal
import socket
import subprocess
import time

import pytest
from conftest import EMULATOR, Emulated, Network, emulator, free_port, tags


def connects(address, port):
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


def test_it_listens_on_one_loopback_address_only(aws):
    assert connects("127.0.0.1", aws.port)
    # All of 127.0.0.0/8 is this machine: whatever listens on all addresses answers here too.
    assert not connects("127.0.0.2", aws.port)


def test_env_tells_a_client_all_it_needs(aws):
    e = aws.environment
    assert e["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{aws.port}"
    assert e["AWS_REGION"] == e["AWS_DEFAULT_REGION"] == "us-west-2" and e["AWS_EC2_METADATA_DISABLED"] == "true"
    assert e["AWS_ACCESS_KEY_ID"] and e["AWS_SECRET_ACCESS_KEY"]
    # What a client writes into its profile must not end in the user's own.
    assert e["AWS_SHARED_CREDENTIALS_FILE"].startswith(str(aws.state)) and e["AWS_CONFIG_FILE"].startswith(str(aws.state))


def test_status_and_a_second_start(aws):
    assert f"{aws.backend} on http://127.0.0.1:{aws.port}" in aws.script("status").stdout
    assert "runs already" in aws.script("start", "--backend", aws.backend).stderr
    other = {"moto": "localstack", "localstack": "moto"}[aws.backend]
    refused = aws.script("start", "--backend", other, check=False)
    assert refused.returncode == 1 and f"port {aws.port} has {aws.backend} already" in refused.stderr
    if aws.backend == "localstack":
        refused = aws.script("start", "--profile", "hostile", "--seed", 3, check=False)
        assert refused.returncode == 1 and f"what runs on port {aws.port} is lenient" in refused.stderr


def test_the_journal(aws):
    said = aws.script("journal", check=False)
    if aws.backend == "moto":
        assert said.returncode == 1 and "writes no journal" in said.stderr
        return
    aws.client("sts").get_caller_identity()
    assert json.loads(aws.script("journal").stdout.splitlines()[-1])["action"] == "GetCallerIdentity"


def test_where_nothing_runs(state):
    port = free_port()
    for verb in ["status", "env", "dump", "journal"]:
        assert emulator(verb, "--port", port, state=state, check=False).returncode == 3
    assert emulator("stop", "--port", port, state=state).stdout == ""


@pytest.mark.parametrize(
    "words", [[], ["begin"], ["start", "--profile", "kind"], ["start", "--backend", "moto", "--profile", "strict"], ["start", "--seed", "1"], ["start", "--profile", "strict", "--time-scale", "fast"], ["start", "--backend", "aws"], ["stop", "--backend", "moto"], ["start", "--port"], ["start", "--port", "x"], ["env", "--port", "70000"]]
)
def test_usage(state, words):
    said = emulator(*words, state=state, check=False)
    assert said.returncode == 2 and "usage: " in said.stderr


def test_a_port_that_is_taken(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        said = emulator("start", "--port", other.getsockname()[1], state=tmp_path, check=False)
    assert said.returncode == 1 and "something else listens" in said.stderr
    assert not list(tmp_path.rglob("*.lock"))


def running_in(directory):
    """Processes that were started with this state directory."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if str(directory).encode() in environ.read():
                    found.append(int(pid))
        except OSError:
            pass
    return found


@pytest.mark.parametrize("backend", ["localstack", "moto"])
def test_two_side_by_side_and_nothing_is_left(tmp_path, backend):
    ports = [free_port(), free_port()]
    for port in ports:
        emulator("start", "--backend", backend, "--port", port, state=tmp_path)
    for port in ports:
        assert str(port) in emulator("status", state=tmp_path).stdout
    # Each has its own, also where the names are the same.
    one, other = (Emulated(backend, port, tmp_path).client("s3") for port in ports)
    for client in (one, other):
        client.create_bucket(Bucket="same", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        client.put_object(Bucket="same", Key="k", Body=b"mine")
    for client in (other, one):
        assert client.get_object(Bucket="same", Key="k")["Body"].read() == b"mine"
        client.delete_object(Bucket="same", Key="k")
        client.delete_bucket(Bucket="same")
    emulator("stop", "--port", ports[0], state=tmp_path)
    assert not connects("127.0.0.1", ports[0]) and connects("127.0.0.1", ports[1])
    emulator("stop", "--port", ports[1], state=tmp_path)
    assert running_in(tmp_path) == []
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_start_that_is_ended_leaves_nothing(tmp_path):
    port = free_port()
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path)}
    starting = subprocess.Popen([EMULATOR, "start", "--port", str(port)], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not list(tmp_path.rglob("pid")) and time.monotonic() < deadline:
        time.sleep(0.05)
    starting.send_signal(signal.SIGTERM)
    assert starting.wait(20) == 143
    assert running_in(tmp_path) == [] and not connects("127.0.0.1", port)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_start_that_fails_names_its_log(tmp_path):
    # A Python that makes environments, and is none.
    state = tmp_path / "state"
    cache = tmp_path / "cache"
    real = subprocess.run(["find", os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")) + "/kup/aws-emulator", "-maxdepth", "1", "-name", "moto-*", "-type", "d"], capture_output=True, text=True, check=True)
    (cache / "kup" / "aws-emulator").mkdir(parents=True)
    for venv in real.stdout.split():
        fake = cache / "kup" / "aws-emulator" / os.path.basename(venv)
        (fake / "bin").mkdir(parents=True)
        (fake / ".complete").touch()
        (fake / "bin" / "python").write_text("#!/bin/sh\necho it is broken\nexit 1\n")
        (fake / "bin" / "python").chmod(0o755)
    port = free_port()
    said = subprocess.run(
        [EMULATOR, "start", "--backend", "moto", "--port", str(port)],
        env=os.environ | {"XDG_STATE_HOME": str(state), "XDG_CACHE_HOME": str(cache), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 1 and "it is broken" in said.stderr and "moto ended before it answered" in said.stderr
    log = said.stderr.rsplit("see ", 1)[1].strip()
    assert "it is broken" in open(log).read()


# --- dump -----------------------------------------------------------------------------------------------------------------------


def dump(aws):
    return aws.script("dump").stdout


def test_a_dump_sees_everything_and_only_what_is_there(aws, name):
    ec2, iam, s3 = aws.client("ec2"), aws.client("iam"), aws.client("s3")
    scaling, elb, ssm = aws.client("autoscaling"), aws.client("elbv2"), aws.client("ssm")
    before = dump(aws)
    assert dump(aws) == before

    undo, marks = [], []

    def made(mark, remove, **arguments):
        """What the dump must show, and how it is taken back."""
        marks.append(mark)
        undo.append(lambda: remove(**arguments))

    network = Network(ec2, name, zones="a")
    made(network.vpc, ec2.delete_vpc, VpcId=network.vpc)
    made(network.group, ec2.delete_security_group, GroupId=network.group)
    made(network.subnets[0], ec2.delete_subnet, SubnetId=network.subnets[0])
    template = ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData={"ImageId": "ami-12c6146b", "InstanceType": "t3.small"})["LaunchTemplate"]["LaunchTemplateId"]
    made(template, ec2.delete_launch_template, LaunchTemplateId=template)
    scaling.create_auto_scaling_group(AutoScalingGroupName=name, MinSize=1, MaxSize=1, VPCZoneIdentifier=network.subnets[0], LaunchTemplate={"LaunchTemplateId": template})
    made(f'"AutoScalingGroupName": "{name}"', scaling.delete_auto_scaling_group, AutoScalingGroupName=name, ForceDelete=True)
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    made(address, ec2.release_address, AllocationId=address)
    volume = ec2.create_volume(AvailabilityZone="us-west-2a", Size=1)["VolumeId"]
    made(volume, ec2.delete_volume, VolumeId=volume)
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    made(snapshot, ec2.delete_snapshot, SnapshotId=snapshot)
    ec2.create_tags(Resources=[volume], Tags=tags(Name=f"{name}-tag"))
    marks.append(f"{name}-tag")
    far = aws.client("ec2", "us-east-1")
    key = far.create_key_pair(KeyName=name)["KeyPairId"]
    made(key, far.delete_key_pair, KeyName=name)
    balancer = elb.create_load_balancer(Name=name, Type="network", Subnets=network.subnets)["LoadBalancers"][0]["LoadBalancerArn"]
    made(balancer, elb.delete_load_balancer, LoadBalancerArn=balancer)
    iam.create_user(UserName=name)
    made(f'"UserName": "{name}"', iam.delete_user, UserName=name)
    access = iam.create_access_key(UserName=name)["AccessKey"]["AccessKeyId"]
    made(access, iam.delete_access_key, UserName=name, AccessKeyId=access)
    policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
    iam.put_user_policy(UserName=name, PolicyName=f"{name}-inline", PolicyDocument=policy)
    made(f"{name}-inline", iam.delete_user_policy, UserName=name, PolicyName=f"{name}-inline")
    managed = iam.create_policy(PolicyName=name, PolicyDocument=policy)["Policy"]["Arn"]
    made(managed, iam.delete_policy, PolicyArn=managed)
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    made(f'"Name": "{name}"', s3.delete_bucket, Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=name, Key="k", Body=b"1")["VersionId"]
    made(version, s3.delete_object, Bucket=name, Key="k", VersionId=version)
    marker = s3.delete_object(Bucket=name, Key="k")["VersionId"]
    made(marker, s3.delete_object, Bucket=name, Key="k", VersionId=marker)
    ssm.put_parameter(Name=f"/{name}", Value="1", Type="String")
    made(f"/{name}", ssm.delete_parameter, Name=f"/{name}")

    now = dump(aws)
    assert [mark for mark in marks if mark not in now or mark in before] == []
    assert any(i.get("Tags", [{}])[0].get("Value") == name for i in json.loads(now)["us-west-2"]["ec2"]["Instances"])
    for step in reversed(undo):
        step()
    after = dump(aws)
    changes = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))
    assert not changes, "\n".join(changes)


def test_a_dump_of_other_regions(aws):
    assert json.loads(aws.script("dump", "--regions", "eu-central-1").stdout).keys() == {"global", "eu-central-1"}
