"""What may reach what: security groups, routes, public addresses, source addresses; and what several networks have of one another."""

import socket
import subprocess

import pytest
from estate import SSH, Estate, needs_machines, until

pytestmark = needs_machines


def connect(cloud, start, to, port=8080, kind="tcp"):
    """From which address a connection comes there; empty if none does."""
    said = cloud.ssh(start, f"timeout 1 bash -c 'exec 3<>/dev/{kind}/{to}/{port}; echo x >&3; head -n 1 <&3'", check=False)
    return said.stdout.strip()


def test_without_a_rule_nothing_comes_in(cloud, machines):
    public, private = machines.public, machines.private
    assert connect(cloud, public[0], private[1]) == connect(cloud, public[0], private[2]) == ""
    with pytest.raises(TimeoutError):
        socket.create_connection((public[1], 8080), timeout=2)


def test_a_rule_lets_exactly_its_own_in(cloud, estate, machines):
    """Same subnet and another one, by group, by range, by protocol and port; taken away and put back."""
    public, private, (a, b, c) = machines.public, machines.private, machines.groups
    for group, to in [(b, 1), (c, 2)]:
        estate.allow(group, "tcp", 8080, a)
        until("it comes in", lambda to=to: connect(cloud, public[0], private[to]) == private[0], 10)
        assert connect(cloud, public[0], private[to], 8081) == ""
        assert connect(cloud, public[0], private[to], 8472, "udp") == ""
        estate.allow(group, "udp", 8472, private[0] + "/32")
        until("a datagram comes in", lambda to=to: connect(cloud, public[0], private[to], 8472, "udp") == private[0], 10)
        estate.revoke(group, "tcp", 8080, a)
        until("it comes in no more", lambda to=to: connect(cloud, public[0], private[to]) == "", 10)
        assert connect(cloud, public[0], private[to], 8472, "udp") == private[0]
        estate.allow(group, "tcp", 8080, a)
        until("it comes in again", lambda to=to: connect(cloud, public[0], private[to]) == private[0], 10)
    # b is allowed nothing by rules about a.
    assert connect(cloud, public[1], private[2]) == ""


def test_a_group_counts_as_soon_as_an_interface_has_it(cloud, estate, machines):
    ids, public, private, (a, b, c) = machines.ids, machines.public, machines.private, machines.groups
    estate.allow(c, "tcp", 8081, b)
    assert connect(cloud, public[0], private[2], 8081) == ""
    nic = cloud.instance(ids[0])["NetworkInterfaces"][0]["NetworkInterfaceId"]
    cloud.ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=[estate.group, a, b])
    until("it is a member", lambda: connect(cloud, public[0], private[2], 8081) == private[0], 10)
    cloud.ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=[estate.group, a])
    until("it is none", lambda: connect(cloud, public[0], private[2], 8081) == "", 10)


def test_what_goes_out_is_by_rules_too(cloud, estate, machines):
    public, private, (a, b, _) = machines.public, machines.private, machines.groups
    # Each group lets everything out, so all of them have to stop.
    all_of_it = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    for group in (estate.group, a):
        cloud.ec2.revoke_security_group_egress(GroupId=group, IpPermissions=all_of_it)
    # Log-ins go on: they are answers.
    until("nothing goes out", lambda: connect(cloud, public[0], private[1]) == "", 10)
    cloud.ec2.authorize_security_group_egress(GroupId=a, IpPermissions=estate.permission("tcp", 8080, b))
    until("what is allowed does", lambda: connect(cloud, public[0], private[1]) == private[0], 10)
    assert connect(cloud, public[0], private[2]) == ""
    for group in (estate.group, a):
        cloud.ec2.authorize_security_group_egress(GroupId=group, IpPermissions=all_of_it)


def test_icmp(cloud, estate, machines):
    public, private, (a, _, c) = machines.public, machines.private, machines.groups
    ping = f"ping -c 1 -W 1 {private[2]}"
    assert cloud.ssh(public[0], ping, check=False).returncode != 0
    cloud.ec2.authorize_security_group_ingress(
        GroupId=c, IpPermissions=[{"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "UserIdGroupPairs": [{"GroupId": a}]}]
    )
    until("a ping comes back", lambda: cloud.ssh(public[0], ping, check=False).returncode == 0, 10)


def test_nobody_sends_under_another_address(cloud, estate, machines):
    public, private, (_, _, c) = machines.public, machines.private, machines.groups
    fake = "172.20.1.99"
    estate.allow(c, "udp", 8472, fake + "/32")
    cloud.ssh(public[0], f"sudo ip addr add {fake}/32 dev lo")
    send = f"python3 -c \"import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('{fake}', 0)); s.sendto(b'x', ('{private[2]}', 8472))\""
    # On the wire, before any rule of the machine's own.
    listen = "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))"
    program = f"import socket\ns = {listen}\ns.settimeout(2)\nwhile True:\n if s.recv(2000)[26:30] == socket.inet_aton('{fake}'):\n  print('seen')\n  break"
    watch = f'sudo timeout 3 python3 -c "{program}"'
    seen = subprocess.Popen(["ssh", *SSH, "-i", cloud.key, f"admin@{public[2]}", watch], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for _ in range(5):
        cloud.ssh(public[0], f"{send}; sleep 0.2")
    assert seen.communicate(timeout=20)[0] == ""
    cloud.ssh(public[0], f"sudo ip addr del {fake}/32 dev lo")


def test_the_way_out_is_by_route_and_by_public_address(cloud, estate, machines):
    ids, public, private, (a, _, c) = machines.ids, machines.public, machines.private, machines.groups
    ask = f"curl -s -m 2 -o /dev/null -w '%{{http_code}}' {cloud.endpoint}/_localstack/health"
    assert cloud.ssh(public[0], ask) == "200"
    # Seen by the API under its public address.
    hop = f"ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR admin@{private[3]}"
    estate.allow(estate.group, "tcp", 22, a)
    cloud.ssh(public[0], f"umask 077; echo '{cloud.key.read_text()}' >.ssh/id_ed25519")
    until("log in by another machine", lambda: cloud.ssh(public[0], f"{hop} true", check=False).returncode == 0, 30)
    assert cloud.ssh(public[0], f'{hop} "{ask}"', check=False).stdout == "000"
    # An address, and it is out; without, it isn't.
    address = cloud.ec2.allocate_address(Domain="vpc")
    nic = cloud.instance(ids[3])["NetworkInterfaces"][0]["NetworkInterfaceId"]
    held = cloud.ec2.associate_address(AllocationId=address["AllocationId"], NetworkInterfaceId=nic)["AssociationId"]
    until("it is reached by its Elastic address", lambda: cloud.reachable(address["PublicIp"]), 15)
    assert cloud.ssh(address["PublicIp"], ask) == "200"
    cloud.ec2.disassociate_address(AssociationId=held)
    until("it is not", lambda: not cloud.reachable(address["PublicIp"]), 15)
    # The address goes to another machine, in place of the one that it had.
    nic = cloud.instance(ids[2])["NetworkInterfaces"][0]["NetworkInterfaceId"]
    cloud.ec2.associate_address(AllocationId=address["AllocationId"], NetworkInterfaceId=nic)
    until("another one has the address", lambda: cloud.ssh(address["PublicIp"], "hostname", check=False).stdout.strip() == "ip-" + private[2].replace(".", "-"), 15)
    assert not cloud.reachable(public[2])
    public[2] = address["PublicIp"]
    # Between machines of one network by public addresses: as from outside.
    estate.allow(c, "tcp", 8081, public[0] + "/32")
    until("it comes from the public address", lambda: connect(cloud, public[0], public[2], 8081) == public[0], 10)
    # No route, no way.
    cloud.ec2.delete_route(RouteTableId=estate.routes, DestinationCidrBlock="0.0.0.0/0")
    until("no way in without a route", lambda: not cloud.reachable(public[0]), 15)
    cloud.ec2.create_route(RouteTableId=estate.routes, DestinationCidrBlock="0.0.0.0/0", GatewayId=estate.gateway)
    until("the way is back", lambda: cloud.reachable(public[0]), 15)


def test_two_networks_may_have_the_same_addresses(cloud, machines):
    public, private = machines.public, machines.private
    other = Estate(cloud, "other")
    id = other.run(0, address=private[0])
    address = cloud.log_in(id)
    assert cloud.instance(id)["PrivateIpAddress"] == private[0]
    assert cloud.ssh(address, "hostname") == machines.hosts[0]
    assert cloud.ssh(address, "cat /etc/machine-id") != cloud.ssh(public[0], "cat /etc/machine-id")
    other.terminate(id)
