"""A flanneld's device and process, as the kernel shows them."""

import subprocess
import sys
from contextlib import closing

import pytest

from driver.host.flanneld_probe import RESTART_S, FlanneldProbe
from driver.host.netlink.constants import GROUP
from driver.model.facts import Flanneld

pytestmark = pytest.mark.kernel
NAMED = """
import os, sys
open("/proc/self/comm", "w").write("flanneld")
os.setuid(int(sys.argv[1]))
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def flanneld():
    """Start processes called so in the namespace of the caller; end them afterwards."""
    started = []

    def start(user=0):
        pipe = subprocess.PIPE
        argv = (sys.executable, "-c", NAMED, str(user))
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, bufsize=0)
        started.append(process)
        assert process.stdout
        assert process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_devices_that_are_ours_and_those_that_are_not(host):
    with closing(FlanneldProbe()) as lookout:
        assert lookout.look() == Flanneld()
        host.ip(
            "link add flannel.1 type vxlan id 1 dstport 8472 dev lo local 127.0.0.1",
            f"link add flannel.7 address 02:00:00:00:00:07 group {GROUP} type vxlan id 7 "
            "dstport 8472 dev lo local 127.0.0.1",
            "link add flannel.9 type bridge",
        )
        assert lookout.look() == Flanneld(
            frozenset({("flannel.1", 1, 8472)}), frozenset({("flannel.7", "02:00:00:00:00:07")})
        )


def test_a_process_of_this_namespace(namespace, flanneld):
    now = [0.0]
    with namespace():
        other = flanneld()
        with closing(FlanneldProbe(lambda: now[0])) as lookout:
            assert lookout.look().process == other.pid
    with closing(FlanneldProbe(lambda: now[0])) as lookout:
        assert lookout.look().process == 0, "one elsewhere has nothing to do with this host"
        flanneld(user=65534)
        assert lookout.look().process == 0, "one of a user's is no flanneld"
        here = flanneld()
        assert lookout.look().process == here.pid
        here.kill()
        here.communicate()
        now[0] = RESTART_S - 1
        assert lookout.look().process == here.pid, "it may be about to start again"
        now[0] = RESTART_S
        assert lookout.look().process == 0
