"""The plugin over HTTP, as dockerd reaches it."""

from __future__ import annotations

import json
from typing import Any

from driver.core.reconciler import Reconciler
from driver.docker.naming import KnownNames
from driver.handlers import create_app
from driver.model.objects import Veth
from tests.unit.bench import make_core
from tests.unit.docker import Docker, Refused


class Plugin:
    """Posts bodies and checks that every failure has the shape that Docker can show."""

    def __init__(
        self, core: Reconciler, *, require_ipam: bool = False, names: KnownNames | None = None
    ) -> None:
        self.client = create_app(core, require_ipam=require_ipam, names=names).test_client()

    def ask(self, method: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Post a body: bytes as they are, None as nothing, the rest as JSON."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body)
        reply = self.client.post(f"/{method}", data=raw)
        return reply.status_code, json.loads(reply.data)

    def call(self, method: str, body: Any = None) -> dict[str, Any]:
        """Make a call that Docker model or trace makes; errors become `Refused`."""
        status, reply = self.ask(method, body)
        if status != 200:
            raise Refused(reply["Err"])
        return reply

    def refusal(self, method: str, body: Any = None) -> tuple[int, str]:
        """Make a call that has to fail; give status and sentence."""
        status, reply = self.ask(method, body)
        assert status not in (200, 404), f"{method} {body!r} was answered {status} {reply}"
        assert set(reply) == {"Err", "Error"}
        message: str = reply["Err"]
        assert message == reply["Error"]
        assert message.strip() == message != ""
        assert message.isprintable(), "a message is one line"
        assert "Traceback" not in message
        return status, message


class Setting:
    """A bench, the plugin over HTTP, and a dockerd that uses it."""

    def __init__(self) -> None:
        self.bench = make_core()
        self.plugin = Plugin(self.bench.core)
        self.docker = Docker(self.bench, self.plugin.call)

    def ports_of(self, endpoint: str) -> list[str]:
        return [str(p) for p in self.bench.state.endpoints[endpoint].ports]

    def veth(self) -> Veth:
        (found,) = (t for t in self.bench.observed() if isinstance(t, Veth))
        return found
