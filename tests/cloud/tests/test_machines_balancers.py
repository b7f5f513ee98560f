"""Network load balancers forward, to healthy targets only, and their names mean something on the host and in machines."""

import socket
import subprocess

from estate import needs_machines, until

pytestmark = needs_machines


WEB = """
import http.server, pathlib, socket
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        well = pathlib.Path('/tmp/well').exists()
        self.send_response(200 if well else 500); self.end_headers()
        self.wfile.write(f'{socket.gethostname()} {self.client_address[0]}'.encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(('', 8090), H).serve_forever()
"""


def fetch(address):
    return subprocess.run(["curl", "-s", "-m", "3", f"http://{address}/"], capture_output=True, text=True).stdout


def test_a_network_load_balancer(cloud, estate, machines):
    elb, ec2 = cloud.client("elbv2"), cloud.ec2
    outer = estate.new_group("balancer")
    estate.allow(estate.group, "tcp", 8090, outer)
    # One in each zone.
    public, private, hosts = machines.public[1:3], machines.private[1:3], machines.hosts[1:3]
    for address in public:
        cloud.ssh(address, f"touch /tmp/well; cat >web.py <<'END'\n{WEB}\nEND\nsudo systemd-run -q python3 $PWD/web.py")
    made = elb.create_load_balancer(Name="api", Type="network", Scheme="internet-facing", Subnets=estate.subnets[:2], SecurityGroups=[outer])["LoadBalancers"][0]
    arn, name = made["LoadBalancerArn"], made["DNSName"]
    group = elb.create_target_group(
        Name="api", TargetType="ip", Protocol="TCP", Port=8090, VpcId=estate.vpc, HealthCheckProtocol="HTTP", HealthCheckPath="/healthz",
        HealthCheckIntervalSeconds=5, HealthCheckTimeoutSeconds=2, HealthyThresholdCount=2, UnhealthyThresholdCount=2,
    )["TargetGroups"][0]["TargetGroupArn"]  # fmt: skip
    elb.create_listener(LoadBalancerArn=arn, Protocol="TCP", Port=80, DefaultActions=[{"Type": "forward", "TargetGroupArn": group}])
    elb.register_targets(TargetGroupArn=group, Targets=[{"Id": address, "Port": 8090} for address in private])

    def health():
        found = elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        return [h["TargetHealth"]["State"] for h in sorted(found, key=lambda h: private.index(h["Target"]["Id"]))]

    def resolved():
        return sorted({found[4][0] for found in socket.getaddrinfo(name, 80, proto=socket.IPPROTO_TCP)})

    # Its own groups stand before it.
    until("both targets are healthy", lambda: health() == ["healthy", "healthy"])
    nodes = until("both nodes have a name", lambda: found if len(found := resolved()) == 2 else None, 10)
    assert fetch(name) == ""
    estate.allow(outer, "tcp", 80, cloud.host + "/32")
    # Each node sends to its own zone; the target sees the node.
    until("each node answers", lambda: sorted(fetch(node).split(" ")[0] for node in nodes) == sorted(hosts), 10)
    seen = fetch(nodes[0]).split(" ")[1]
    assert seen in [n["PrivateIpAddress"] for n in ec2.describe_network_interfaces()["NetworkInterfaces"] if n["Description"].startswith("ELB net/api/")]
    # One falls ill, and nothing goes there; all of the name is the other node.
    address = public[0]
    cloud.ssh(address, "sudo rm /tmp/well")
    until("it is unhealthy", lambda: health() == ["unhealthy", "healthy"], 30)
    until("its node has no name", lambda: len(resolved()) == 1, 10)
    assert {fetch(name).split(" ")[0] for _ in range(4)} == {hosts[1]}
    # With zones crossed, the other node sends there too.
    elb.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=[{"Key": "load_balancing.cross_zone.enabled", "Value": "true"}])
    until("every node sends to the healthy one", lambda: {fetch(node).split(" ")[0] for node in nodes} == {hosts[1]}, 10)
    cloud.ssh(address, "sudo touch /tmp/well")
    until("it is healthy again", lambda: health() == ["healthy", "healthy"], 30)
    # Machines know the name, and one another's.
    estate.allow(outer, "tcp", 80, address + "/32")
    until("a machine reaches it", lambda: cloud.ssh(address, f"curl -s -m 3 http://{name}/", check=False).stdout.startswith("ip-"), 10)
    assert cloud.ssh(address, f"getent hosts {hosts[1]}").split()[:2] == [private[1], f"{hosts[1]}.us-west-2.compute.internal"]
    assert cloud.ssh(address, "getent hosts nobody.example", check=False).returncode == 2
    elb.delete_load_balancer(LoadBalancerArn=arn)
    elb.delete_target_group(TargetGroupArn=group)
    until("the name is gone", lambda: name not in open("/etc/hosts").read(), 10)
    assert not [n for n in ec2.describe_network_interfaces()["NetworkInterfaces"] if n["Description"].startswith("ELB")]
