"""A network with machines in it, as the tests of `start --machines` share it, and the ways to look into them."""

import json
import subprocess
import time

import pytest

REGION = "us-west-2"
# Connections are shared, as a log-in takes a busy machine a second; one that has died is noticed.
SSH = [f"-o{option}" for option in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes", "ConnectTimeout=2")]
SSH += ["-oServerAliveInterval=2", "-oServerAliveCountMax=2"]
# For what is to become true. A busy machine gets time; nothing passes later because of it.
DEADLINE = 60


def until(what, holds, deadline=DEADLINE):
    """Asks again until it is so, and gives the answer."""
    end = time.monotonic() + deadline
    while not (answer := holds()):
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.1)
    return answer


class Cloud:
    """A running emulator with machines."""

    def __init__(self, emulated, directory):
        self.emulated, self.port, self.state, self.client = emulated, emulated.port, emulated.state, emulated.client
        self.host = emulated.environment["KUP_CALLER_ADDRESS"]
        self.endpoint = emulated.environment["AWS_ENDPOINT_URL"]
        self.directory = directory
        self.key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self.ec2 = self.client("ec2")
        self.ec2.import_key_pair(KeyName="tests", PublicKeyMaterial=self.key.with_suffix(".pub").read_bytes())

    def ssh(self, address, command, check=True, shared=True):
        """What a command printed; or, unchecked, all of what became of it."""
        share = [f"-oControlPath={self.directory}/{address}", "-oControlMaster=auto", "-oControlPersist=60"] if shared else []
        words = ["ssh", *SSH, *share, "-i", self.key, f"admin@{address}", command]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        assert not check or done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}"
        return done.stdout.strip() if check else done

    def reachable(self, address):
        """By a connection of its own."""
        return self.ssh(address, "true", check=False, shared=False).returncode == 0

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

    def remove(self):
        """All but its machines."""
        ec2 = self.ec2
        for subnet in self.subnets:
            ec2.delete_subnet(SubnetId=subnet)
        for association in ec2.describe_route_tables(RouteTableIds=[self.routes])["RouteTables"][0]["Associations"]:
            ec2.disassociate_route_table(AssociationId=association["RouteTableAssociationId"])
        ec2.delete_route_table(RouteTableId=self.routes)
        ec2.detach_internet_gateway(InternetGatewayId=self.gateway, VpcId=self.vpc)
        ec2.delete_internet_gateway(InternetGatewayId=self.gateway)
        ec2.delete_security_group(GroupId=self.group)
        ec2.delete_vpc(VpcId=self.vpc)

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

    def run(self, subnet=0, groups=None, public=True, address=None, **more):
        nic = {"DeviceIndex": 0, "SubnetId": self.subnets[subnet], "Groups": groups or [self.group], "AssociatePublicIpAddress": public}
        nic |= {"PrivateIpAddress": address} if address else {}
        given = {"NetworkInterfaces": [nic], "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}} | more
        return self.ec2.run_instances(MinCount=1, MaxCount=1, ImageId="ami-12c6146b", InstanceType="t3.small", KeyName="tests", **given)["Instances"][0]["InstanceId"]

    def terminate(self, *ids):
        if ids:
            self.ec2.terminate_instances(InstanceIds=list(ids))


POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::tests/*"},
        {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": "arn:aws:s3:::tests/of/${aws:userid}"},
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": "arn:aws:s3:::tests"},
        {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::tests/pki/*"},
    ],
}
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}


def make_profile(cloud):
    iam, s3 = cloud.client("iam"), cloud.client("s3")
    iam.create_role(RoleName="minion", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.put_role_policy(RoleName="minion", PolicyName="inline", PolicyDocument=json.dumps(POLICY))
    iam.create_instance_profile(InstanceProfileName="minion")
    iam.add_role_to_instance_profile(InstanceProfileName="minion", RoleName="minion")
    s3.create_bucket(Bucket="tests", CreateBucketConfiguration={"LocationConstraint": REGION})
    for key in ["node/manifest", "pki/ca.key"]:
        s3.put_object(Bucket="tests", Key=key, Body=f"this is {key}".encode())


SCRIPT = """#!/bin/sh
echo "user-data of $(hostname)"
touch /root/user-data-ran
"""

# Answers each connection, and each datagram, by the address that it sees.
SERVER = """
import socket, socketserver, threading
name = socket.gethostname().encode()
class Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
class T(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.client_address[0].encode() + b"\\n")
        for line in self.rfile:
            self.wfile.write(line)
class U(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.client_address[0].encode() + b"\\n")
for port in (8080, 8081):
    threading.Thread(target=Tcp(("", port), T).serve_forever).start()
threading.Thread(target=socketserver.ThreadingUDPServer(("", 8472), U).serve_forever).start()
"""


class Machines:
    """Each of the first three has a public address, and answers on 8080, 8081 and udp/8472."""

    def __init__(self, cloud, estate, profile):
        self.groups = [estate.new_group(name) for name in ("a", "b", "c")]
        a, b, c = self.groups
        self.ids = [
            estate.run(
                0,
                [estate.group, a],
                UserData=SCRIPT,
                IamInstanceProfile={"Name": profile},
                TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "one"}]}],
                MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "InstanceMetadataTags": "enabled"},
            ),
            estate.run(0, [estate.group, b]),
            estate.run(1, [estate.group, c]),
            estate.run(0, [estate.group], public=False),
        ]
        self.public = [cloud.log_in(id) for id in self.ids[:3]]
        self.private = [cloud.running(id)["PrivateIpAddress"] for id in self.ids]
        self.hosts = ["ip-" + address.replace(".", "-") for address in self.private]
        for address in self.public:
            cloud.ssh(address, f"cat >server.py <<'END'\n{SERVER}\nEND\nsudo systemd-run -q python3 $PWD/server.py")


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
