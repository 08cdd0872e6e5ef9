"""What Docker is asked, and what is made of its answers."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from driver.docker.engine import Container, Engine, Exited, Names
from driver.errors import Unavailable

NETWORKS = [
    {"Id": "n1", "Name": "app", "Driver": "flannel"},
    {"Id": "n2", "Name": "bridge", "Driver": "bridge"},
]
PLACES = {
    "app": {"NetworkID": "n1", "EndpointID": "e1", "IPAddress": "10.2.0.2", "IPPrefixLen": 26,
            "MacAddress": "02:00:00:00:00:01", "Gateway": "10.2.0.1"},
    "bridge": {"NetworkID": "n2", "EndpointID": "e2", "IPAddress": ""},
}  # fmt: skip
WEB = {"Id": "c1", "Names": ["/web"], "NetworkSettings": {"Networks": PLACES}}
INSPECTED = {"NetworkSettings": {"Networks": PLACES, "SandboxKey": "/run/docker/netns/c1"}}
ANSWERS: dict[str, object] = {
    "/networks": NETWORKS,
    "/containers/json": [WEB],
    "/containers/c1/json": INSPECTED,
}
STARTS = {
    "/containers/stopped/start": (204, b""),
    "/containers/running/start": (304, b""),
    "/containers/broken/start": (500, b'{"message": "no such command"}'),
    "/containers/odd/start": (500, b"[7]"),
}
Start = Callable[[dict[str, object]], Engine]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Serve answers by path; 404 for any other."""
    path, served = tmp_path / "docker.sock", dict[str, object]()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = served.get(self.path)
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(found if isinstance(found, bytes) else json.dumps(found).encode())

        def do_POST(self) -> None:
            status, message = STARTS[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(message)

        def log_message(self, *_: object) -> None:
            pass

        def address_string(self) -> str:
            return ""

    def serving(answers: dict[str, object]) -> Engine:
        served.update(answers)
        return Engine(path)

    with socketserver.UnixStreamServer(str(path), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield serving
        server.shutdown()
        thread.join()


def test_names_by_id(start: Start) -> None:
    web = Container("c1", "web")
    assert start(ANSWERS).names() == Names({"n1": "app", "n2": "bridge"}, {"e1": web, "e2": web})


@pytest.mark.parametrize(
    ("names", "name"),
    [(["/other/alias", "/web"], "web"), ([], "c" * 12), (None, "c" * 12)],
)
def test_a_container_without_a_plain_name(names: object, name: str, start: Start) -> None:
    web = {**WEB, "Id": "c" * 64, "Names": names}
    found = start({**ANSWERS, "/containers/json": [web]}).names()
    assert found.containers["e1"] == Container("c" * 64, name)
    assert found.networks["n1"] == "app"


def test_names_are_texts(start: Start) -> None:
    networks = [{"Id": 1, "Name": 2}, {"Id": "n3", "Name": None}]
    found = start({**ANSWERS, "/networks": networks}).names()
    assert found.networks == {"1": "2", "n3": "None"}


def test_subnets_of_other_drivers_as_docker_shows_them(start: Start) -> None:
    """Docker 20.10 shows a subnet as it was given to it, also with the bits of a host."""
    parts = [{"Subnet": "172.30.0.5/16"}, {"Subnet": "fd00::/64"}, {"Gateway": "10.0.0.1"}]
    networks = [
        {"Name": "odd", "Driver": "macvlan", "IPAM": {"Config": parts}},
        {"Name": "none", "Driver": "null", "IPAM": {"Config": None}},
        {"Name": "app", "Driver": "flannel", "IPAM": {"Config": [{"Subnet": "10.2.0.0/26"}]}},
    ]
    assert start({"/networks": networks}).other_subnets() == [("odd", IPv4Network("172.30.0.0/16"))]
    parts[0]["Subnet"] = "172.30.0.0.5"
    with pytest.raises(Unavailable, match="Docker cannot be asked on "):
        start({"/networks": networks}).other_subnets()


BROKEN = [b"no json", b"[7]", [{}], [{"Id": "n1"}], {"message": "no"}, b"[" * 100_000]


@pytest.mark.parametrize("answer", BROKEN)
@pytest.mark.parametrize("path", ["/networks", "/containers/json"])
def test_no_names_of_a_docker_that_answers_nonsense(
    path: str, answer: object, start: Start
) -> None:
    assert start({**ANSWERS, path: answer}).names() == Names()


def test_no_docker(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "absent")
    assert engine.names() == Names()
    with pytest.raises(Unavailable, match="Docker does not list its networks: "):
        engine.networks()
    with pytest.raises(Unavailable, match=f"Docker cannot be asked on {engine.socket}: "):
        engine.described()


def test_the_networks(start: Start) -> None:
    assert start(ANSWERS).networks() == {"n1", "n2"}


@pytest.mark.parametrize("answer", [*BROKEN[:3], [], None])
def test_networks_are_listed_or_refused(answer: object, start: Start) -> None:
    with pytest.raises(Unavailable):
        start({"/networks": answer}).networks()


def test_what_is_of_this_driver(start: Start) -> None:
    assert start(ANSWERS).described() == {
        "Networks": [NETWORKS[0]],
        "Endpoints": [
            {
                "EndpointID": "e1",
                "Address": "10.2.0.2/26",
                "MacAddress": "02:00:00:00:00:01",
                "Gateway": "10.2.0.1",
                "Sandbox": "/run/docker/netns/c1",
            }
        ],
    }


@pytest.mark.parametrize("path", list(ANSWERS))
def test_a_part_that_is_missing_is_not_left_out(path: str, start: Start) -> None:
    with pytest.raises(Unavailable):
        start({**ANSWERS, path: {"message": "no"}}).described()


ENDED = {
    "Name": "/web",
    "HostConfig": {"RestartPolicy": {"Name": "always"}},
    "State": {"Error": "no driver"},
}
LIST = "/containers/json?all=1&filters=%7B%22status%22%3A%20%5B%22exited%22%5D%7D"


def test_what_ended(start: Start) -> None:
    engine = start({LIST: [{"Id": "c1"}], "/containers/c1/json": {"Id": "c1", **ENDED}})
    assert engine.exited() == [Exited("c1", "web", "always", "no driver")]


@pytest.mark.parametrize("answer", [{"Id": "c1"}, [7], None])
def test_what_ended_is_listed_or_refused(answer: object, start: Start) -> None:
    with pytest.raises(Unavailable, match="Docker does not list its containers: "):
        start({LIST: [{"Id": "c1"}], "/containers/c1/json": answer}).exited()


def test_a_start(start: Start, tmp_path: Path) -> None:
    engine = start({})
    engine.start("stopped")
    engine.start("running")
    for container, words in (("broken", "no such command"), ("odd", "500")):
        with pytest.raises(Unavailable, match=words):
            engine.start(container)
    with pytest.raises(Unavailable):
        Engine(tmp_path / "absent").start("stopped")
