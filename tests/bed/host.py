"""A machine with its own Docker and, if started, the plugin."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tests.bed import cgroups, image, unixhttp
from tests.bed.commands import Process, Result, members, tail
from tests.bed.node import Node
from tests.bed.rootfs import PROJECT
from tests.bed.waiting import wait_for

DOCKER_SOCKET = "/run/docker.sock"
PLUGIN_SOCKET = "/run/docker/plugins/flannel.sock"
_FAMILIAR = "/usr/bin/docker"


class Host(Node):
    """A node with dockerd and the plugin as long-running processes, switched on and off apart."""

    private: ClassVar = {Path("/etc/docker"): "etc-docker"}

    def __init__(
        self,
        name: str,
        folder: Path,
        adopt: Callable[[int], None],
        root: Path,
    ) -> None:
        """Prepare a host; the control groups of its containers are named after its folder."""
        super().__init__(name, folder, adopt, root)
        self.cgroup = (folder.parent.name, folder.name)
        self.state_dir = folder / "state"
        self.state_dir.mkdir()
        self.dockerd: Process | None = None
        self.plugin: Process | None = None

    # dockerd

    def start_dockerd(self, **daemon_json: Any) -> None:
        """Write /etc/docker/daemon.json, start dockerd and wait until it answers.

        `daemon_json` are settings beside the bed's own; an underscore in a name stands for a
        dash. Raises WaitError, or AssertionError with the end of its log when dockerd gives up.
        """
        self.set_up_dockerd(**daemon_json)
        self._run_dockerd()

    def set_up_dockerd(self, **daemon_json: Any) -> None:
        """Write /etc/docker/daemon.json, as `start_dockerd` does."""
        settings = {
            "data-root": str(self.folder / "docker"),
            "exec-root": "/run/docker",
            "pidfile": "/run/docker.pid",
            "hosts": [f"unix://{DOCKER_SOCKET}"],
            "cgroup-parent": "/" + "/".join(self.cgroup),
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            **{key.replace("_", "-"): value for key, value in daemon_json.items()},
        }
        file = self.folder / "etc-docker" / "daemon.json"
        file.write_text(json.dumps(settings, indent=2))

    def _run_dockerd(self) -> None:
        self.run("rm", "-f", "/run/docker.pid")  # of a killed one, and the number may be in use
        bed, own = self.cgroup
        command = [*cgroups.joining(bed, f"{own}/dockerd"), "dockerd"]
        self.dockerd = self._start("dockerd", command, DOCKER_SOCKET, ("GET", "/_ping"))

    def stop_dockerd(self, limit_s: float = 120) -> int:
        """Send SIGTERM to dockerd and wait for its end; return its exit code."""
        assert self.dockerd is not None
        return self.dockerd.stop(limit_s)

    def kill_dockerd(self) -> None:
        """Send SIGKILL to dockerd alone; shims and containers live on."""
        assert self.dockerd is not None
        self.dockerd.signal(9)
        self.dockerd.wait()

    def restart_dockerd(self) -> None:
        """Stop dockerd if it runs and start it with daemon.json as it now is."""
        if self.dockerd is not None and self.dockerd.running():
            self.stop_dockerd()
        self._run_dockerd()

    def docker(
        self,
        *args: str | Path,
        check: bool = True,
        limit_s: float = 120,
        input: str | None = None,  # noqa: A002 - as in run
        cwd: Path | None = None,
    ) -> Result:
        """Run the host's docker command; see `run`."""
        return self.run(
            self._familiar(),
            *args,
            check=check,
            limit_s=limit_s,
            env=self.docker_env,
            input=input,
            cwd=cwd,
        )

    def compose(
        self,
        *args: str | Path,
        cwd: Path,
        check: bool = True,
        limit_s: float = 300,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run the host's Compose in the folder `cwd`: docker-compose, or the plugin without it."""
        command = ["docker-compose"]
        if not self._has("/usr/bin/docker-compose"):
            command = [self._familiar(), "compose"]
        both = {**self.docker_env, **(env or {})}
        return self.run(*command, *args, check=check, limit_s=limit_s, env=both, cwd=cwd)

    @property
    def docker_env(self) -> dict[str, str]:
        """Environment for Docker's clients; DOCKER_CONFIG is a folder of the host's own."""
        config = str(self.folder / "docker-config")
        return {"DOCKER_HOST": f"unix://{DOCKER_SOCKET}", "DOCKER_CONFIG": config}

    def _has(self, inside: str) -> bool:
        return (self.root / inside.lstrip("/")).exists()

    def _familiar(self) -> str:
        return _FAMILIAR if self._has(_FAMILIAR) else "docker"

    def load_image(self) -> str:
        """Load the bed's image (busybox with all its applets) and return its name."""
        self.docker("load", "-i", image.archive(self.folder.parent / "box.tar"))
        return image.NAME

    # the plugin

    def start_plugin(
        self, env: Mapping[str, str] | None = None, argv: Sequence[str | Path] | None = None
    ) -> None:
        """Start the plugin from the project's tree and wait until it answers `Plugin.Activate`.

        `env` adds to DOCKER_FLANNEL_STATE_DIR; `argv` replaces `python -m driver serve`. Raises
        as `start_dockerd` does.
        """
        command = list(argv or [sys.executable, "-m", "driver", "serve"])
        both = {"DOCKER_FLANNEL_STATE_DIR": str(self.state_dir), **(env or {})}
        self.plugin = self._start(
            "plugin", command, PLUGIN_SOCKET, ("POST", "/Plugin.Activate"), both
        )

    def stop_plugin(self, limit_s: float = 60) -> int:
        """Send SIGTERM to the plugin's main process and wait for its end; return its exit code."""
        assert self.plugin is not None
        return self.plugin.stop(limit_s)

    def kill_plugin(self) -> None:
        """Send SIGKILL to all processes of the plugin and wait until they are gone."""
        assert self.plugin is not None
        self.plugin.kill()

    def plugin_log(self) -> str:
        """All output of the plugin since the host was added."""
        file = self.folder / "plugin.log"
        return file.read_text("utf-8", "replace") if file.exists() else ""

    def plugin_pids(self) -> list[int]:
        """Processes of the plugin, by their numbers outside."""
        return members(self.plugin.pid) if self.plugin is not None else []

    def call(self, method: str, body: object = None, limit_s: float = 30) -> tuple[int, Any]:
        """Post to the plugin as dockerd would; return status and decoded JSON.

        `method` is like "NetworkDriver.Join". A body that is not JSON comes back as text. Raises
        OSError when nobody listens or the answer takes over `limit_s` seconds.
        """
        data = b"" if body is None else json.dumps(body).encode()
        status, answer = unixhttp.request(
            self.path(PLUGIN_SOCKET), "POST", f"/{method}", data, limit_s
        )
        try:
            return status, json.loads(answer)
        except ValueError:
            return status, answer.decode("utf-8", "replace")

    # both

    def _start(
        self,
        name: str,
        argv: Sequence[str | Path],
        socket: str,
        ready: tuple[str, str],
        env: Mapping[str, str] | None = None,
    ) -> Process:
        process = self.popen(*argv, env=env, cwd=PROJECT, log_name=name)

        def up() -> bool:
            assert process.running(), f"{name} ended with {process.code}\n{self.context()}"
            return unixhttp.answers(self.path(socket), *ready)

        wait_for(up, f"{name} of {self.name} to answer at {socket}", 120)
        return process

    def context(self) -> str:
        """Ends of the logs of dockerd and the plugin."""
        names = ("dockerd", "plugin")
        files = [self.folder / f"{name}.log" for name in names]
        return tail({f.name: f.read_text("utf-8", "replace") for f in files if f.exists()})
