"""Nothing is left of an emulator with machines, however it ends."""

import os
import pathlib
import signal
import subprocess

import pytest
from conftest import EMULATOR, Emulated, emulator, free_port
from estate import Cloud, Estate, loops_of, names_of, needs_machines, until
from test_script import running_in

pytestmark = needs_machines


def nothing_left(port, state):
    assert names_of(port) == [] and loops_of(state) == [] and running_in(state) == []
    assert str(port) not in pathlib.Path("/etc/hosts").read_text()
    assert [p for p in state.rglob("*") if p.is_file()] == []


def process_of(port, id):
    """A machine's first process."""
    return subprocess.run(["podman", "inspect", "--format={{.State.Pid}}", f"kup-aws-{port}-{id}"], capture_output=True, text=True, check=True).stdout


def is_runner(process):
    return b"machines\0run" in (process / "cmdline").read_bytes() and "python" in (process / "exe").readlink().name


def test_nothing_is_left_though_its_processes_were_killed(tmp_path):
    """A machine with a volume and a balancer; the dump is the same before and after; the runner, killed, goes on where it was."""
    port = free_port()
    emulator("start", "--machines", "--port", port, state=tmp_path)
    try:
        emulated = Emulated("localstack", port, tmp_path)
        empty = emulated.script("dump").stdout
        assert f"localstack on {emulated.environment['AWS_ENDPOINT_URL']}" in emulated.script("status").stdout
        refused = emulator("start", "--port", port, state=tmp_path)
        assert "runs already" in refused.stderr
        key = tmp_path / "k"
        key.mkdir()
        cloud = Cloud(emulated, key)
        estate = Estate(cloud, "estate")
        id = estate.run()
        volume = cloud.ec2.create_volume(AvailabilityZone="us-west-2a", Size=1)["VolumeId"]
        cloud.running(id)
        cloud.ec2.attach_volume(VolumeId=volume, InstanceId=id, Device="/dev/sdf")
        elb = cloud.client("elbv2")
        balancer = elb.create_load_balancer(Name="api", Type="network", Subnets=estate.subnets[:1])["LoadBalancers"][0]
        until("its name is there", lambda: balancer["DNSName"] in pathlib.Path("/etc/hosts").read_text(), 20)
        until("a loop device", lambda: loops_of(tmp_path), 20)
        # The runner alone is killed: another one takes over what is there.
        container = process_of(port, id)
        (runner,) = [pid for pid in running_in(tmp_path) if is_runner(pathlib.Path(f"/proc/{pid}"))]
        os.kill(runner, signal.SIGKILL)
        address = cloud.log_in(id)
        assert cloud.ssh(address, "test -b /dev/nvme1n1 && echo yes") == "yes"
        assert container == process_of(port, id)
        subprocess.run(["ssh", "-O", "exit", f"-oControlPath={key}/{address}", "x"], capture_output=True)
        # All is taken back by the API: nothing is left, though the emulator goes on.
        elb.delete_load_balancer(LoadBalancerArn=balancer["LoadBalancerArn"])
        estate.terminate(id)
        until("the machine is gone", lambda: not [name for name in names_of(port) if id in name])
        until("the volume can go", lambda: cloud.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available", 10)
        cloud.ec2.delete_volume(VolumeId=volume)
        estate.remove()
        cloud.ec2.delete_key_pair(KeyName="tests")
        until("only the edge and the link are left", lambda: len(names_of(port)) == 3, 20)
        assert emulated.script("dump").stdout == empty
        # One more, and everything is killed.
        cloud.running(Estate(cloud, "other").run())
        for pid in running_in(tmp_path):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        until("nothing runs", lambda: emulator("status", "--port", port, state=tmp_path, check=False).returncode == 3, 20)
        assert names_of(port)
        for file in key.iterdir():
            file.unlink()
    finally:
        emulator("stop", "--port", port, state=tmp_path)
    nothing_left(port, tmp_path)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_start_that_is_ended_leaves_nothing(tmp_path, how):
    port = free_port()
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path)}
    starting = subprocess.Popen([EMULATOR, "start", "--machines", "--port", str(port)], env=environment, stderr=subprocess.DEVNULL)
    until("the link is there", lambda: names_of(port))
    starting.send_signal(how)
    assert starting.wait(60) == (143 if how == signal.SIGTERM else -9)
    if how == signal.SIGKILL:
        # What it had begun may be in the making still, and is waited for.
        emulator("stop", "--port", port, state=tmp_path)
    nothing_left(port, tmp_path)
