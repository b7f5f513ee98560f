"""Faults that a test orders, the journal, and AWS on its worst days."""

import concurrent.futures
import hashlib
import json
import subprocess
import sys
import threading
import time
import urllib.error
from functools import partial

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ConnectionError, EndpointConnectionError, HTTPClientError
from conftest import Emulated, emulator, eventually, free_port

BROKEN = (ConnectionClosedError, ConnectionError, EndpointConnectionError, HTTPClientError)


@pytest.fixture
def order(both):
    yield lambda **said: both.control("POST", "faults", said)["id"]
    both.control("DELETE", "faults")


def keys(both):
    return {key["KeyName"] for key in both.client("ec2").describe_key_pairs()["KeyPairs"]}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_reset(both, order, name, when):
    order(service="ec2", action="CreateKeyPair", when=when, what="reset")
    ec2 = both.client("ec2")
    with pytest.raises(BROKEN):
        ec2.create_key_pair(KeyName=name, KeyType="ed25519")
    # Only the reply is lost, if it is lost after.
    assert (name in keys(both)) == (when == "after")
    (call,) = both.calls(action="CreateKeyPair", fault=f"reset {when}")
    assert call["status"] is None and call["parameters"]["KeyName"] == name
    # One call was meant.
    ec2.create_key_pair(KeyName=f"{name}-next", KeyType="ed25519")


@pytest.mark.parametrize("what, code", [("500", "InternalError"), ("throttle", "RequestLimitExceeded"), ("error", "InsufficientInstanceCapacity")])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_error(both, order, name, what, code, when):
    order(service="ec2", action="CreateKeyPair", nth=2, when=when, what=what, **({"code": code} if what == "error" else {}))
    ec2 = both.client("ec2")
    ec2.create_key_pair(KeyName=f"{name}-1", KeyType="ed25519")
    with pytest.raises(ClientError, match=code):
        ec2.create_key_pair(KeyName=f"{name}-2", KeyType="ed25519")
    assert (f"{name}-2" in keys(both)) == (when == "after")


def test_any_call_that_changes_something(both, order, name):
    id = order(mutates=True, nth=2, times=2, when="after", what="500")
    iam, ec2 = both.client("iam"), both.client("ec2")
    iam.create_user(UserName=name)
    iam.get_user(UserName=name)
    with pytest.raises(ClientError, match="ServiceFailure"):
        iam.delete_user(UserName=name)
    with pytest.raises(ClientError, match="InternalError"):
        ec2.create_key_pair(KeyName=name, KeyType="ed25519")
    ec2.delete_key_pair(KeyName=name)
    fault = both.control("GET", f"faults/{id}")
    assert fault["state"] == "done" and fault["call"]["action"] == "CreateKeyPair"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_call_is_held_and_others_are_not(both, order, name, when):
    id = order(service="ec2", action="CreateKeyPair", when=when, what="hold")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        held = pool.submit(both.client("ec2").create_key_pair, KeyName=name, KeyType="ed25519")
        assert both.control("GET", f"faults/{id}?until=held")["state"] == "held"
        assert (name in keys(both)) == (when == "after")
        both.control("POST", f"faults/{id}/release")
        assert held.result(20)["KeyName"] == name
    fault = both.control("GET", f"faults/{id}")
    assert (fault["state"], fault["end"]) == ("done", "released") and name in keys(both)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_held_call_whose_client_is_killed(both, order, name, when):
    id = order(service="ec2", action="CreateKeyPair", when=when, what="hold")
    program = f"import boto3; boto3.client('ec2').create_key_pair(KeyName='{name}', KeyType='ed25519')"
    client = subprocess.Popen([sys.executable, "-c", program], env=both.environment)
    assert both.control("GET", f"faults/{id}?until=held&seconds=20")["state"] == "held"
    client.kill()
    client.wait()
    fault = eventually(lambda: f if (f := both.control("GET", f"faults/{id}"))["state"] == "done" else None)
    assert fault["end"] == "abandoned"
    assert (name in keys(both)) == (when == "after")


@pytest.mark.parametrize("said", [{"what": "fire"}, {"what": "500", "when": "during"}, {"what": "error"}, {"what": "500", "nth": 0}, {"what": "500", "acton": "x"}, []])
def test_an_order_that_is_none(both, said):
    with pytest.raises(urllib.error.HTTPError) as refused:
        both.control("POST", "faults", said)
    assert refused.value.code == 400 and json.load(refused.value)["error"]


def test_the_journal_tells_all_and_no_secrets(both, own, debian, name):
    iam, s3 = both.client("iam"), both.client("s3")
    own.run(debian, UserData="#!/bin/sh\necho hush")
    iam.create_user(UserName=name)
    secret = iam.create_access_key(UserName=name)["AccessKey"]["SecretAccessKey"]
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    s3.put_object(Bucket=name, Key="k", Body=b"hush")
    with pytest.raises(ClientError):
        iam.get_user(UserName="nobody")
    text = both.script("journal").stdout
    assert "hush" not in text and secret not in text and "aHVza" not in text
    launch = both.calls(action="RunInstances", code=None)[-1]
    assert launch["service"] == "ec2" and launch["mutates"] and launch["region"] == "us-west-2" and launch["status"] == 200
    assert launch["parameters"]["ImageId"] == debian and launch["parameters"]["UserData"]["length"] == 28
    (put,) = [call for call in both.calls(action="PutObject") if call["parameters"]["Bucket"] == name]
    assert put["parameters"]["Body"] == {"length": 4, "sha256": hashlib.sha256(b"hush").hexdigest()}
    (asked,) = [call for call in both.calls(action="GetUser") if call["parameters"]["UserName"] == "nobody"]
    assert (asked["status"], asked["code"], asked["mutates"]) == (404, "NoSuchEntity", False)
    numbers = [call["n"] for call in both.calls() if call["n"]]
    assert len(set(numbers)) == len(numbers)


def test_many_at_once(both):
    """moto's state is not made for it: the emulator works on one after the other."""
    errors = []

    def life(number):
        ec2 = both.client("ec2")
        try:
            for i in range(5):
                ec2.create_key_pair(KeyName=f"many-{number}-{i}", KeyType="ed25519")
                ec2.describe_key_pairs()
                ec2.delete_key_pair(KeyName=f"many-{number}-{i}")
        except ClientError as error:
            errors.append(error)

    threads = [threading.Thread(target=life, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # All of an account's describes are out of one bucket.
    assert [e for e in errors if e.response["Error"]["Code"] != "RequestLimitExceeded"] == []
    assert not [key for key in keys(both) if key.startswith("many-")]


# --- hostile --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[7])
def worst(request, state):
    port = free_port()
    emulator("start", "--profile", "hostile", "--seed", request.param, "--time-scale", 0.1, "--port", port, state=state)
    yield Emulated("localstack", port, state, "hostile")
    emulator("stop", "--port", port, state=state)


def story(aws, names):
    """What a client that gives up at once meets: one word for each call."""
    ec2, met = aws.client("ec2"), []
    for name in names:
        # Filtered, since of calls for everything there may be so few that it would depend on the machine's pace.
        this = {"Filters": [{"Name": "key-name", "Values": [name]}]}
        make, look = partial(ec2.create_key_pair, KeyName=name, KeyType="ed25519"), partial(ec2.describe_key_pairs, **this)
        for call in [make, look, partial(ec2.delete_key_pair, KeyName=name)]:
            try:
                call()
                met.append("ok")
            except ClientError as error:
                met.append(error.response["Error"]["Code"])
            except BROKEN:
                met.append("reset")
    return met


def no_capacity(ec2):
    """With this seed both come within so many first launches."""
    met = set()
    for _ in range(8):
        try:
            ec2.run_instances(ImageId="ami-0123456789abcdef0", InstanceType="t3.nano", MinCount=1, MaxCount=1)
        except ClientError as error:
            met.add(error.response["Error"]["Code"])
        except BROKEN:
            pass
    assert {"InsufficientInstanceCapacity", "VcpuLimitExceeded"} <= met, met


def test_the_seed_decides(worst, state):
    names = [f"k{i}" for i in range(60)]
    met = story(worst, names)
    for kind in ["ok", "InternalError", "RequestLimitExceeded", "reset"]:
        assert kind in met, met
    # A reply was lost, and the call had taken effect.
    lost = worst.calls(fault="lost after")
    assert any(call["mutates"] for call in lost)
    port = free_port()
    emulator("start", "--profile", "hostile", "--seed", 7, "--port", port, state=state)
    try:
        assert story(Emulated("localstack", port, state), names) == met
    finally:
        emulator("stop", "--port", port, state=state)
    emulator("start", "--profile", "hostile", "--seed", 9, "--port", port, state=state)
    try:
        other = Emulated("localstack", port, state)
        assert story(other, names) != met
        no_capacity(other.client("ec2"))
    finally:
        emulator("stop", "--port", port, state=state)


PASSES = {"InternalError", "InternalFailure", "ServiceFailure", "RequestLimitExceeded", "Throttling"}


def patiently(call, passes=(), ends=()):
    """As a good client: again after what passes. Gives the answer, or the code that ends it too, and what was met on the way."""
    met = []
    for _ in range(200):
        try:
            return call(), met
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ends:
                return code, met
            assert code in PASSES | set(passes), error
            met.append(code)
        except BROKEN:
            met.append("reset")
        time.sleep(0.05)
    raise AssertionError(f"it never passes: {met}")


# docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html; gardener/gardener-extension-provider-aws#1947.
def test_what_is_new_is_not_known_everywhere_and_what_is_gone_is_still_listed(worst):
    ec2 = worst.client("ec2")
    met, missing, ghosts = [], 0, 0

    def listed():
        return [vpc["VpcId"] for vpc in patiently(lambda: ec2.describe_vpcs(Filters=[{"Name": "cidr", "Values": ["10.0.0.0/16"]}]))[0]["Vpcs"]]

    for _ in range(12):
        made = patiently(lambda: ec2.create_vpc(CidrBlock="10.0.0.0/16"))[0]["Vpc"]["VpcId"]
        met += patiently(lambda: ec2.modify_vpc_attribute(VpcId=made, EnableDnsHostnames={"Value": True}), passes={"InvalidVpcID.NotFound"})[1]
        missing += made not in listed()
        eventually(lambda: made in listed())
        # There may be two: the reply to the making of one was lost.
        for vpc in listed():
            patiently(lambda: ec2.delete_vpc(VpcId=vpc), ends={"InvalidVpcID.NotFound"})
        ghosts += len(listed())
    assert "InvalidVpcID.NotFound" in met and missing and ghosts


# hashicorp/packer#9810, hashicorp/terraform#15341: the words are those of a wrong name.
def test_a_new_profile_is_no_profile_yet(worst):
    iam, ec2 = worst.client("iam"), worst.client("ec2")
    image = patiently(lambda: worst.client("ssm").get_parameter(Name="/aws/service/debian/release/13/latest/amd64"))[0]["Parameter"]["Value"]
    met = []
    for i in range(4):
        patiently(lambda: iam.create_instance_profile(InstanceProfileName=f"p{i}"), ends={"EntityAlreadyExists"})

        def launch():
            return ec2.run_instances(ImageId=image, InstanceType="t3.nano", MinCount=1, MaxCount=1, IamInstanceProfile={"Name": f"p{i}"})

        met += patiently(launch, passes={"InvalidParameterValue", "InsufficientInstanceCapacity", "VcpuLimitExceeded"})[1]
    assert "InvalidParameterValue" in met
    assert worst.calls(action="RunInstances", fault="profile not known yet")
