"""Programs other than kup, each told by nothing but what `env` prints. (boto3 is what all other tests use.)"""

import json
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
from conftest import BACKENDS, Emulated, emulator, free_port

HERE = pathlib.Path(__file__).parent


def run(aws, *words):
    # With the user's own settings out of the way.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")} | aws.environment
    environment["PATH"] = os.environ["PATH"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cli(aws, *words):
    return json.loads(run(aws, sys.executable, "-m", "awscli", "--output", "json", *words) or "{}")


def test_the_aws_command(aws, name):
    assert cli(aws, "sts", "get-caller-identity")["Account"] == "123456789012"
    vpc = cli(aws, "ec2", "create-vpc", "--cidr-block", "172.20.0.0/16", "--tag-specifications", f"ResourceType=vpc,Tags=[{{Key=Name,Value={name}}}]")["Vpc"]["VpcId"]
    found = cli(aws, "ec2", "describe-vpcs", "--filters", f"Name=tag:Name,Values={name}")["Vpcs"]
    assert [v["VpcId"] for v in found] == [vpc]
    assert cli(aws, "autoscaling", "describe-auto-scaling-groups", "--auto-scaling-group-names", name)["AutoScalingGroups"] == []
    assert isinstance(cli(aws, "elbv2", "describe-load-balancers")["LoadBalancers"], list)
    # By path: a bucket's name in front of the address would have to be resolved.
    run(aws, sys.executable, "-m", "awscli", "s3", "mb", f"s3://{name}")
    run(aws, sys.executable, "-m", "awscli", "s3", "cp", __file__, f"s3://{name}/file")
    assert [o["Key"] for o in cli(aws, "s3api", "list-objects-v2", "--bucket", name)["Contents"]] == ["file"]


def test_boto3_from_the_environment_alone(aws, monkeypatch):
    for variable in [v for v in os.environ if v.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    for variable, value in aws.environment.items():
        if variable.startswith("AWS_"):
            monkeypatch.setenv(variable, value)
    session = boto3.session.Session()
    assert session.client("sts").get_caller_identity()["Account"] == "123456789012"
    assert session.client("ec2").meta.region_name == "us-west-2"


def test_the_sdk_for_go(aws, name, tmp_path_factory):
    program = tmp_path_factory.getbasetemp() / "cloud-test"
    if not program.exists():
        subprocess.run(["go", "build", "-trimpath", "-o", program, "."], cwd=HERE.parent / "go", check=True)
    assert run(aws, str(program), name).splitlines() == ["account 123456789012", "instances 2", "lock taken", "lock PreconditionFailed"]


def test_many_first_calls_at_once(tmp_path):
    """kup asks several services at the same time, and may be the first to ask."""
    for backend in BACKENDS:
        port = free_port()
        emulator("start", "--backend", backend, "--port", port, state=tmp_path)
        try:
            fresh = Emulated(backend, port, tmp_path)
            calls = [("autoscaling", "describe_auto_scaling_groups"), ("elbv2", "describe_load_balancers"), ("ec2", "describe_vpcs"), ("iam", "list_users"), ("s3", "list_buckets")]
            clients = [(fresh.client(service), call) for service, call in calls]
            with ThreadPoolExecutor(len(calls)) as pool:
                for answer in [pool.submit(getattr(client, call)) for client, call in clients]:
                    assert answer.result()["ResponseMetadata"]["HTTPStatusCode"] == 200
        finally:
            emulator("stop", "--port", port, state=tmp_path)
