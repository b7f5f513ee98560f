"""Instances are machines: they boot with their user-data, are reached, stopped, started and gone as the API says."""

import json
import subprocess
import time

import pytest
from conftest import emulator, free_port
from estate import Cloud, Estate, needs_machines, until

pytestmark = needs_machines


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    state = tmp_path_factory.mktemp("machines")
    port = free_port()
    emulator("start", "--machines", "--port", port, state=state)
    yield Cloud(port, state, state)
    emulator("stop", "--port", port, state=state)


@pytest.fixture(scope="module")
def estate(cloud):
    return Estate(cloud, "estate")


POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::tests/*"},
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": "arn:aws:s3:::tests"},
        {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::tests/pki/*"},
    ],
}
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}


@pytest.fixture(scope="module")
def profile(cloud):
    iam, s3 = cloud.client("iam"), cloud.client("s3")
    iam.create_role(RoleName="minion", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.put_role_policy(RoleName="minion", PolicyName="inline", PolicyDocument=json.dumps(POLICY))
    iam.create_instance_profile(InstanceProfileName="minion")
    iam.add_role_to_instance_profile(InstanceProfileName="minion", RoleName="minion")
    s3.create_bucket(Bucket="tests", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    for key in ["node/manifest", "pki/ca.key"]:
        s3.put_object(Bucket="tests", Key=key, Body=f"this is {key}".encode())
    return "minion"


SCRIPT = """#!/bin/sh
echo "user-data of $(hostname)"
touch /root/user-data-ran
"""


@pytest.fixture(scope="module")
def one(cloud, estate, profile):
    """A machine with everything; its id and its public address."""
    id = estate.run(
        UserData=SCRIPT,
        IamInstanceProfile={"Name": profile},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "one"}]}],
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "InstanceMetadataTags": "enabled"},
    )
    return id, cloud.log_in(id)


def get(cloud, address, path, *more):
    """Asks a machine's metadata with a token, from the machine."""
    said = cloud.ssh(
        address,
        "T=$(curl -sf -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token); "
        f"curl -s -m 5 -w '\\n%{{http_code}}' -H \"X-aws-ec2-metadata-token: $T\" {' '.join(more)} http://169.254.169.254/latest/{path}",
    )
    body, _, code = said.rpartition("\n")
    return body if code == "200" else int(code)


def test_a_machine_boots_as_a_stock_image_does(cloud, one):
    id, address = one
    assert cloud.ssh(address, "sudo id -u; hostname; systemctl is-system-running --wait || systemctl --failed --no-legend").split("\n") == [
        "0",
        f"ip-{cloud.instance(id)['PrivateIpAddress'].replace('.', '-')}",
        "running",
    ]
    assert "nftables" in cloud.ssh(address, "sudo nft --version")
    assert cloud.ssh(address, "find / -xdev -regex '.*[^a-z]kup.*' 2>/dev/null; cat /proc/1/comm") == "systemd"
    assert cloud.ssh(address, "cloud-init status --wait").endswith("status: done")
    assert cloud.ssh(address, "sudo ls /root/user-data-ran && cloud-id") == "/root/user-data-ran\nnocloud"


def test_the_console_tells_what_user_data_wrote(cloud, one):
    said = until("user-data on the console", lambda: text if "user-data of ip-172-20-0-" in (text := cloud.console(one[0])) else None)
    assert "Cloud-init" in said and "BEGIN SSH HOST KEY KEYS" in said


def test_metadata(cloud, estate, one):
    id, address = one
    seen = cloud.instance(id)
    assert cloud.ssh(address, "curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/latest/meta-data/instance-id") == "401"
    nic = seen["NetworkInterfaces"][0]
    wanted = {
        "instance-id": id,
        "local-ipv4": seen["PrivateIpAddress"],
        "public-ipv4": address,
        "local-hostname": seen["PrivateDnsName"],
        "hostname": seen["PrivateDnsName"],
        "placement/availability-zone": "us-west-2a",
        "placement/region": "us-west-2",
        "instance-type": "t3.small",
        "ami-id": "ami-12c6146b",
        "mac": nic["MacAddress"],
        f"network/interfaces/macs/{nic['MacAddress']}/subnet-id": estate.subnets[0],
        f"network/interfaces/macs/{nic['MacAddress']}/vpc-id": estate.vpc,
        "security-groups": "estate",
        "tags/instance/Name": "one",
        "iam/security-credentials/": "minion",
        "nothing": 404,
    }
    assert {path: get(cloud, address, "meta-data/" + path) for path in wanted} == wanted
    assert json.loads(get(cloud, address, "dynamic/instance-identity/document"))["instanceId"] == id
    assert get(cloud, address, "user-data") == SCRIPT
    assert cloud.ssh(address, "cat /sys/class/net/ens5/address") == nic["MacAddress"]


def test_a_pod_does_not_get_metadata_over_one_hop(cloud, one):
    """A namespace behind the machine, as a pod is, at a limit of one hop and of two."""
    id, address = one
    cloud.ssh(
        address,
        "sudo sh -ec 'ip netns add pod; ip link add veth0 type veth peer name eth0 netns pod; ip addr add 10.9.9.1/24 dev veth0; ip link set veth0 up; "
        "ip -n pod addr add 10.9.9.2/24 dev eth0; ip -n pod link set eth0 up; ip -n pod route add default via 10.9.9.1; echo 1 >/proc/sys/net/ipv4/ip_forward; "
        "nft add table ip t; nft add chain ip t p { type nat hook postrouting priority srcnat \\; }; nft add rule ip t p ip saddr 10.9.9.2 masquerade'",
    )
    ask = "sudo ip netns exec pod curl -s -m 2 -o /dev/null -w '%{http_code}' -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token"
    assert cloud.ssh(address, ask, check=False).stdout == "000"
    cloud.ec2.modify_instance_metadata_options(InstanceId=id, HttpPutResponseHopLimit=2)
    until("a pod gets a token", lambda: cloud.ssh(address, ask, check=False).stdout == "200", 10)
    cloud.ec2.modify_instance_metadata_options(InstanceId=id, HttpPutResponseHopLimit=1)
    until("a pod gets none", lambda: cloud.ssh(address, ask, check=False).stdout == "000", 10)


def test_the_roles_credentials_may_what_its_policy_says(cloud, one):
    """By the very means of kup's node script: curl signs."""
    _, address = one
    held = json.loads(get(cloud, address, "meta-data/iam/security-credentials/minion"))

    def ask(method, key):
        signed = f"-K - --aws-sigv4 aws:amz:us-west-2:s3 -X {method}"
        secret = f'user = "{held["AccessKeyId"]}:{held["SecretAccessKey"]}"\\nheader = "x-amz-security-token: {held["Token"]}"\\n'
        return cloud.ssh(address, f"printf '{secret}' | curl -s -m 10 -w ' %{{http_code}}' {signed} '{cloud.endpoint}/tests{key}'")

    assert ask("GET", "/node/manifest") == "this is node/manifest 200"
    assert ask("GET", "?list-type=2").endswith(" 200")
    for method, key in [("GET", "/pki/ca.key"), ("PUT", "/node/manifest"), ("DELETE", "/node/manifest")]:
        said = ask(method, key)
        assert said.endswith(" 403") and "AccessDenied" in said, said
    # The user's own key still may.
    assert cloud.client("s3").get_object(Bucket="tests", Key="pki/ca.key")["Body"].read() == b"this is pki/ca.key"


def test_stopped_and_started_it_keeps_its_disk(cloud, estate):
    id = estate.run()
    before = cloud.log_in(id)
    boot = cloud.ssh(before, "sudo touch /root/kept /var/kept && cat /proc/sys/kernel/random/boot_id; sudo ip route add blackhole 10.77.0.0/16; cat /etc/machine-id").split()
    cloud.ec2.stop_instances(InstanceIds=[id])
    until("it doesn't answer", lambda: not cloud.reachable(before))
    cloud.ec2.start_instances(InstanceIds=[id])
    after = cloud.log_in(id)
    assert cloud.ssh(after, "sudo ls /root/kept /var/kept; ip route show 10.77.0.0/16; cat /etc/machine-id").split() == ["/root/kept", "/var/kept", boot[1]]
    # A reboot from inside.
    cloud.ssh(after, "sudo touch /run/of-this-boot; sudo systemctl reboot", check=False)
    until("it is back", lambda: cloud.ssh(after, "test ! -e /run/of-this-boot", check=False).returncode == 0)
    # Switched off from inside, it is stopped.
    cloud.ssh(after, "sudo systemctl poweroff", check=False)
    until("it is stopped", lambda: cloud.instance(id)["State"]["Name"] == "stopped")
    estate.terminate(id)


def containers(cloud):
    said = subprocess.run(["podman", "ps", "-a", f"--filter=label=kup.aws-emulator={cloud.port}", "--format={{.Names}}"], capture_output=True, text=True, check=True)
    return {name.removeprefix(f"kup-aws-{cloud.port}-") for name in said.stdout.split()}


def test_one_whose_machine_died_can_be_terminated(cloud, estate):
    id = estate.run()
    cloud.running(id)
    subprocess.run(["podman", "kill", f"kup-aws-{cloud.port}-{id}"], check=True, capture_output=True)
    assert id in containers(cloud)
    estate.terminate(id)
    until("its container is gone", lambda: id not in containers(cloud))


def test_an_auto_scaling_group_replaces_its_machine(cloud, estate, image_of=lambda: "ami-12c6146b"):
    scaling = cloud.client("autoscaling")
    nic = {"DeviceIndex": 0, "AssociatePublicIpAddress": True, "DeleteOnTermination": True, "Groups": [estate.group]}
    data = {"ImageId": image_of(), "InstanceType": "t3.small", "KeyName": "tests", "NetworkInterfaces": [nic]}
    cloud.ec2.create_launch_template(LaunchTemplateName="minions", LaunchTemplateData=data)
    scaling.create_auto_scaling_group(
        AutoScalingGroupName="minions", MinSize=1, MaxSize=1, VPCZoneIdentifier=estate.subnets[1], LaunchTemplate={"LaunchTemplateName": "minions"}
    )

    def members():
        return [i["InstanceId"] for i in scaling.describe_auto_scaling_groups(AutoScalingGroupNames=["minions"])["AutoScalingGroups"][0]["Instances"]]

    first = members()[0]
    address = cloud.log_in(first)
    assert cloud.ssh(address, "ip -4 -o addr show ens5 | grep -o 'inet [0-9./]*'") == f"inet {cloud.instance(first)['PrivateIpAddress']}/24"
    estate.terminate(first)
    second = until("another one is in the group", lambda: next((i for i in members() if i != first), None))
    cloud.log_in(second)
    until("the first one's container is gone", lambda: first not in containers(cloud))
    scaling.delete_auto_scaling_group(AutoScalingGroupName="minions", ForceDelete=True)
    until("the second one's container is gone", lambda: second not in containers(cloud))
