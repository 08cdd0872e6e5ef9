"""Show or write the lines of daemon.json that make `-d flannel` enough.

Only this module touches Docker's own settings. It never restarts dockerd.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from driver.cli.daemon_json import LINES, SINCE, merge, show
from driver.cli.program import Program
from driver.errors import BadRequest, Conflict, HostError
from driver.files import read_file, replacement

SETTINGS = ()
DAEMON_JSON = Path("/etc/docker/daemon.json")
LIMIT_S = 60.0
VERSION = re.compile(r"version (\d+)\.[^\s,]*")
HINT = (
    f"Docker {SINCE} and later understand it; on earlier ones `--ipam-driver flannel` does the "
    "same, in a compose file `ipam: {driver: flannel}`.\n"
    "With it, a network with --subnet needs --ipv4, too (`enable_ipv4: true`).\n"
)


def arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--write", action="store_true", help="put them into the file")
    parser.add_argument("--file", type=Path, default=DAEMON_JSON, help="default %(default)s")


def run(_: Program, args: Namespace) -> None:
    """Print the lines, with hints on stderr only, so that a file can take them; or write them."""
    if args.write:
        print(write(args.file), end="")
        return
    print(show(LINES), end="", flush=True)
    print(f"{HINT}`docker-flannel setup-daemon --write` puts it into {args.file}.", file=sys.stderr)


def write(path: Path) -> str:
    """Put the lines into a daemon.json, which may be missing; return sentences on what was done.

    The new file replaces the old one atomically, with its mode and owner; the old one is kept
    beside it under another name.
    Errors: BadRequest, Conflict, HostError, without any change.
    """
    dockerd = shutil.which("dockerd")
    if dockerd:
        _check_version(dockerd)
    try:
        path = path.resolve()  # replace a symbolic link's target, not the link
        text = read_file(path).decode("utf-8-sig") if path.exists() else ""
        merged = merge(text)
        if merged is None:
            return f"{path} has the setting already: nothing was changed\n"
        backup = _replace(path, merged, dockerd)
    except (BadRequest, Conflict) as error:
        raise type(error)(f"{path} is left as it is: {error}") from None
    except UnicodeError as error:
        raise BadRequest(f"{path} is left as it is: it is no UTF-8 text ({error})") from None
    except OSError as error:
        raise HostError(f"{path} cannot be changed: {error}") from error
    return (
        f"{path} has the setting now{f'; as it was it is in {backup}' if backup else ''}\n"
        + ("" if dockerd else "there is no dockerd here to check the file with\n")
        + HINT
        + "Restart Docker when it suits (`systemctl restart docker`): networks made from then on "
        "have it.\n"
    )


def _check_version(dockerd: str) -> None:
    found = VERSION.search(_run(dockerd, "--version").stdout)
    if found and int(found[1]) < SINCE:
        raise Conflict(
            f"Docker {found[0].removeprefix('version ')} does not understand the setting, "
            f"{SINCE} and later do: use --ipam-driver flannel there"
        )


def _check(dockerd: str, path: Path) -> None:
    """Have dockerd validate the file."""
    done = _run(dockerd, "--validate", "--config-file", str(path))
    if done.returncode:
        reason = (done.stderr + done.stdout).strip().replace(str(path), "the file")
        raise Conflict(f"dockerd would not start with it: {' '.join(reason.split())}")


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{argv[0]} gave no answer in {LIMIT_S:.0f} s") from error


def _replace(path: Path, text: str, dockerd: str | None) -> Path | None:
    """Replace a file by a checked one; return where the old one is kept, if there was one."""
    with replacement(path, text.encode(), 0o644) as new:
        if dockerd:
            _check(dockerd, new)
        return _keep(path)


def _keep(path: Path) -> Path | None:
    """Add a second name to the file, under which it stays when it is replaced; return that."""
    if not path.exists():
        return None
    backup = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}.bak")
    backup.hardlink_to(path)
    return backup
