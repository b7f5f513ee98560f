"""Instances are machines: they boot with their user-data, are reached, stopped, started and gone as the API says."""

import json
import subprocess

import pytest
from estate import SCRIPT, needs_machines, until

pytestmark = needs_machines


@pytest.fixture
def one(machines):
    """A machine with everything; its id and its public address."""
    return machines.ids[0], machines.public[0]


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
        "security-groups": "a\nestate",
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


def test_the_roles_credentials_may_what_its_policy_says(cloud, one, machines):
    """By the very means of kup's node script: curl signs."""
    _, address = one
    held = json.loads(get(cloud, address, "meta-data/iam/security-credentials/minion"))

    def ask(method, key):
        signed = f"-K - --aws-sigv4 aws:amz:us-west-2:s3 -X {method}"
        secret = f'user = "{held["AccessKeyId"]}:{held["SecretAccessKey"]}"\\nheader = "x-amz-security-token: {held["Token"]}"\\n'
        return cloud.ssh(address, f"printf '{secret}' | curl -s -m 10 -w ' %{{http_code}}' {signed} '{cloud.endpoint}/tests{key}'")

    assert ask("GET", "/node/manifest") == "this is node/manifest 200"
    assert ask("GET", "?list-type=2").endswith(" 200")
    # A policy may speak of who asks: here, of which instance.
    role = cloud.client("iam").get_role(RoleName="minion")["Role"]["RoleId"]
    assert ask("PUT", f"/of/{role}:{machines.ids[0]}") == "200" and ask("PUT", f"/of/{role}:{machines.ids[1]}").endswith(" 403")
    for method, key in [("GET", "/pki/ca.key"), ("PUT", "/node/manifest"), ("DELETE", "/node/manifest")]:
        said = ask(method, key)
        assert said.endswith(" 403") and "AccessDenied" in said, said
    # The user's own key still may.
    assert cloud.client("s3").get_object(Bucket="tests", Key="pki/ca.key")["Body"].read() == b"this is pki/ca.key"


def test_stopped_and_started_it_keeps_its_disks(cloud, estate):
    id = estate.run()
    before = cloud.log_in(id)
    volume = cloud.ec2.create_volume(AvailabilityZone="us-west-2a", Size=1, VolumeType="gp3", Encrypted=True)["VolumeId"]
    disk = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_" + volume.replace("-", "")
    cloud.ec2.attach_volume(VolumeId=volume, InstanceId=id, Device="/dev/sdf")
    until("the disk is there", lambda: cloud.ssh(before, f"test -b {disk}", check=False).returncode == 0, 20)
    assert cloud.ssh(before, f"readlink -f {disk}; sudo blockdev --getsize64 {disk}").split() == ["/dev/nvme1n1", str(1 << 30)]
    machine = cloud.ssh(before, "sudo touch /root/kept /var/kept; sudo ip route add blackhole 10.77.0.0/16; cat /etc/machine-id")
    cloud.ssh(before, f"sudo mkfs.ext4 -q {disk} && sudo mount {disk} /mnt && echo data | sudo tee /mnt/kept")
    cloud.ec2.stop_instances(InstanceIds=[id])
    until("it doesn't answer", lambda: not cloud.reachable(before))
    cloud.ec2.start_instances(InstanceIds=[id])
    after = cloud.log_in(id)
    assert cloud.ssh(after, "sudo ls /root/kept /var/kept; ip route show 10.77.0.0/16; cat /etc/machine-id").split() == ["/root/kept", "/var/kept", machine]
    until("the disk is there again", lambda: cloud.ssh(after, f"sudo mount {disk} /mnt && cat /mnt/kept", check=False).stdout.strip() == "data", 20)
    # A reboot from inside.
    cloud.ssh(after, "sudo touch /run/of-this-boot; sudo systemctl reboot", check=False)
    until("it is back", lambda: cloud.ssh(after, "test ! -e /run/of-this-boot", check=False, shared=False).returncode == 0)
    # Switched off from inside, it is stopped.
    cloud.ssh(after, "sudo systemctl poweroff", check=False, shared=False)
    until("it is stopped", lambda: cloud.instance(id)["State"]["Name"] == "stopped")
    estate.terminate(id)
    until("the volume is free", lambda: cloud.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available", 20)
    cloud.ec2.delete_volume(VolumeId=volume)


def test_a_volume_goes_from_a_machine_that_is_lost_to_the_next(cloud, estate, machines):
    """As kup keeps etcd's data."""
    volume = cloud.ec2.create_volume(AvailabilityZone="us-west-2a", Size=1, VolumeType="gp3", Encrypted=True)["VolumeId"]
    disk = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_" + volume.replace("-", "")
    lost = estate.run()
    first, (id, second) = cloud.log_in(lost), (machines.ids[1], machines.public[1])
    cloud.ec2.attach_volume(VolumeId=volume, InstanceId=lost, Device="/dev/sdf")
    until("the disk is there", lambda: cloud.ssh(first, f"test -b {disk}", check=False).returncode == 0, 20)
    cloud.ssh(first, f"sudo mkfs.ext4 -q {disk} && sudo mount {disk} /mnt && echo data | sudo tee /mnt/kept && sync")
    estate.terminate(lost)
    until("it is free", lambda: cloud.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available")
    cloud.ec2.attach_volume(VolumeId=volume, InstanceId=id, Device="/dev/sdf")
    until("the disk is in the next one", lambda: cloud.ssh(second, f"test -b {disk}", check=False).returncode == 0, 20)
    assert cloud.ssh(second, f"sudo mount {disk} /mnt && cat /mnt/kept && sudo umount /mnt") == "data"
    cloud.ec2.detach_volume(VolumeId=volume)
    until("the disk is gone", lambda: cloud.ssh(second, f"test -e {disk}", check=False).returncode != 0, 20)
    cloud.ec2.delete_volume(VolumeId=volume)
    file = cloud.state / "kup" / "aws-emulator" / str(cloud.port) / "machines" / "volumes" / f"{volume}.img"
    until("its file is gone", lambda: not file.exists() and volume not in subprocess.run(["losetup", "-l"], capture_output=True, text=True).stdout, 20)


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


def test_an_auto_scaling_group_replaces_its_machine(cloud, estate):
    scaling = cloud.client("autoscaling")
    nic = {"DeviceIndex": 0, "AssociatePublicIpAddress": True, "DeleteOnTermination": True, "Groups": [estate.group]}
    data = {"ImageId": "ami-12c6146b", "InstanceType": "t3.small", "KeyName": "tests", "NetworkInterfaces": [nic]}
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
