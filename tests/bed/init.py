"""First process of a node: builds its file system, then lives until its owner does not.

Runs by path, alone, in fresh namespaces. Argument 1 is a JSON object: `steps`, commands to run
in the old root, and `root`, the folder that becomes the root. Its own process id as the outside
sees it goes to stdout when all is ready. The end of stdin is the end of the owner; when the
first process of a PID namespace ends, the kernel kills all others in it.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Build, report, wait. Raises CalledProcessError when a step fails."""
    plan = json.loads(sys.argv[1])
    pid = Path("/proc/self").readlink()  # still the outside's /proc, so the outside's number
    for step in plan["steps"]:
        subprocess.run(step, check=True)
    new, old = Path(plan["root"]), Path(plan["root"], ".outside")
    old.mkdir()
    subprocess.run(["pivot_root", new, old], check=True)
    os.chdir("/")
    subprocess.run(["umount", "-l", "/.outside"], check=True)
    Path("/.outside").rmdir()
    subprocess.run(["mount", "--make-rshared", "/"], check=True)  # as an init system does
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans end here; the kernel reaps them
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
    sys.stdin.read()


main()
