"""Bodies from Docker: what is read, and how each refusal is worded."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from driver.api.body import PORTMAP, Body, bindings
from driver.core.publish import Binding
from driver.errors import BadRequest
from tests.unit.docker import port, portmap

EPHEMERAL = (32768, 60999)


def refusal(read: Any, *args: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        read(*args)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert len(message) < 500, "a message is one sentence, whatever was sent"
    return message


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "the request has no body; a JSON object is needed"),
        (b"{", "the request is no JSON: Expecting property name"),
        (b"nonsense", "the request is no JSON"),
        (b"\xff\xfe", "the request is no JSON"),
        (b'{"a": 1', "the request is no JSON"),
        (b"[" * 100_000, "the request is no JSON"),
        (b"1" * 10_000, "the request is no JSON"),
        (b"[]", "the request is a JSON list, not an object"),
        (b"null", "the request is a JSON NoneType, not an object"),
        (b'"text"', "the request is a JSON str, not an object"),
        (b"7", "the request is a JSON int, not an object"),
    ],
)
def test_what_is_no_object_is_refused(raw: bytes, words: str) -> None:
    assert refusal(Body.decode, raw).startswith(words)


def test_an_object_is_decoded_and_unknown_fields_are_ignored() -> None:
    body = Body.decode(json.dumps({"A": "ä", "Newer": {"x": [1]}}).encode())
    assert body.text("A") == "ä"


WRONG: dict[str, list[Any]] = {
    "text": [1, True, 1.5, [], {}, ["a"]],
    "flag": ["true", 1, 0, [], {}, ""],
    "number": ["1", True, 1.5, [], {}, None],
    "part": ["a", 1, True, [], [{}]],
    "parts": ["a", 1, True, {}, ["a"], [None], [{}, 1]],
    "address": [1, True, [], {}, "10.2.0", "10.2.0.5/26", "::1", "10.2.0.256", "a" * 300, " ", "ä"],
    "interface": [1, [], {}, "10.2.0", "10.2.0.5/33", "::1/64", "10.2.0.5/26/1", "x" * 300, "٤"],
    "prefix": [1, [], {}, "10.2.0", "10.2.0.5/26", "::/0", "10.2.0.0/33", "/", "x" * 300],
    "mac": [1, [], {}, "02:42", "02:42:0a:02:00:0g", "02-42-0a-02-00-05", "02:42:0a:02:00:05:06",
            "02:42:0a:02:00:05\n", "x" * 300],
    "object_id": [1, [], {}, "", "a" * 11, "a" * 65, "a" * 300, "A" * 64, "a" * 11 + "/",
                  "../../../etc", "a" * 12 + "\n", "ä" * 12, "٤" * 12, "a" * 12 + " "],
}  # fmt: skip
CASES = [(reader, value) for reader, values in WRONG.items() for value in values]


@pytest.mark.parametrize(("reader", "value"), CASES)
def test_a_wrong_value_is_refused_with_field_and_value(reader: str, value: Any) -> None:
    message = refusal(getattr(Body({"Some": value}, "Outer."), reader), "Some")
    assert message.startswith("Outer.Some ")
    if value is None:
        assert "is missing" in message
    elif reader == "prefix" and isinstance(value, str):
        assert repr(value[:60])[:-1] in message
    else:
        assert json.dumps(value)[:60] in message


@pytest.mark.parametrize(
    ("reader", "empty"),
    [("flag", False), ("parts", []), ("address", None), ("interface", None), ("prefix", None),
     ("mac", "")],
)  # fmt: skip
@pytest.mark.parametrize("fields", [{}, {"Some": None}])
def test_what_may_be_absent_is_empty(reader: str, empty: Any, fields: dict[str, Any]) -> None:
    assert getattr(Body(fields), reader)("Some") == empty
    assert Body(fields).text("Some", needed=False) == ""
    assert Body(fields).part("Some").texts() == {}


@pytest.mark.parametrize("reader", ["text", "object_id", "number"])
@pytest.mark.parametrize("fields", [{}, {"Some": None}])
def test_what_is_needed_is_called_missing(reader: str, fields: dict[str, Any]) -> None:
    assert refusal(getattr(Body(fields), reader), "Some").startswith("Some is missing; it is ")


def test_the_needed_text_is_not_empty() -> None:
    assert refusal(Body({"Some": ""}).text, "Some") == 'Some "" is not a text'


@pytest.mark.parametrize(
    ("reader", "value", "read"),
    [
        ("text", " a ä ", " a ä "),
        ("flag", True, True),
        ("number", 80, 80),
        ("object_id", "a" * 12, "a" * 12),
        ("object_id", "0123456789abcdefghijklmnop", "0123456789abcdefghijklmnop"),
        ("mac", "02:42:0A:02:00:05", "02:42:0a:02:00:05"),
        ("address", "10.2.0.5", IPv4Address("10.2.0.5")),
        ("address", "", None),
        ("interface", "10.2.0.5/26", IPv4Interface("10.2.0.5/26")),
        ("prefix", "10.2.0.0/26", IPv4Network("10.2.0.0/26")),
    ],
)
def test_a_right_value_is_read(reader: str, value: Any, read: Any) -> None:
    assert getattr(Body({"Some": value}), reader)("Some") == read


def test_host_bits_are_named() -> None:
    message = refusal(Body({"Pool": "10.2.0.5/26"}).prefix, "Pool")
    assert message == (
        "Pool '10.2.0.5/26' is no IPv4 prefix like 10.2.0.0/26: 10.2.0.5/26 has host bits set"
    )


def test_long_values_are_cut() -> None:
    assert refusal(Body({"NetworkID": "a" * 300}).object_id, "NetworkID") == (
        'NetworkID "' + "a" * 79 + "… is not 12 to 64 lower-case letters and digits"
    )


def test_an_option_with_a_strange_name_makes_no_second_line() -> None:
    refusal(Body({"Options": {"a\nb": 1}}).part("Options").texts)


def test_parts_of_parts_are_named_in_full() -> None:
    body = Body({"Options": {"Inner": [{}, {"Port": "x"}]}}).part("Options").parts("Inner")[1]
    assert refusal(body.number, "Port") == 'Options.Inner.Port "x" is not a whole number'


@pytest.mark.parametrize(
    "pool_id", ["10.2.0.0/26/0badcafe", "docker/" + "a" * 64, "a", "10.2.0.0/26"]
)
def test_pool_ids_are_read(pool_id: str) -> None:
    assert Body({"PoolID": pool_id}).pool_id() == pool_id


@pytest.mark.parametrize("pool_id", ["", None, 1, "a" * 101, "A", "a b", "a\n", "ä", "a;b", [], {}])
def test_other_pool_ids_are_refused(pool_id: Any) -> None:
    message = refusal(Body({"PoolID": pool_id}).pool_id)
    assert message.startswith("PoolID ")


def test_texts_gives_options_with_null_as_empty() -> None:
    assert Body({"a": "1", "b": None}).texts() == {"a": "1", "b": ""}
    assert refusal(Body({"a": 1}, "Options.").texts) == "Options.a 1 is not a text"


# --- ports ---


def binding(**fields: Any) -> Body:
    return Body({PORTMAP: [{**port(80, 8080), **fields}]})


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({}, ("tcp", "0.0.0.0", 8080, 8080, 80)),
        ({"Proto": 17, "HostIP": "192.168.1.5"}, ("udp", "192.168.1.5", 8080, 8080, 80)),
        ({"Proto": 132, "HostIP": None}, ("sctp", "0.0.0.0", 8080, 8080, 80)),
        ({"HostPort": 8000, "HostPortEnd": 8005}, ("tcp", "0.0.0.0", 8000, 8005, 80)),
        ({"HostPort": 0, "HostPortEnd": 0}, ("tcp", "0.0.0.0", *EPHEMERAL, 80)),
        ({"HostPort": 8080, "HostPortEnd": 0}, ("tcp", "0.0.0.0", 8080, 8080, 80)),
        ({"HostPort": 65535, "HostPortEnd": 65535, "Port": 65535},
         ("tcp", "0.0.0.0", 65535, 65535, 65535)),
    ],
)  # fmt: skip
def test_a_binding_is_read(fields: dict[str, Any], want: tuple[Any, ...]) -> None:
    proto, host, *numbers = want
    assert bindings(binding(**fields), lambda: EPHEMERAL) == [
        Binding(proto, IPv4Address(host), *numbers)
    ]


@pytest.mark.parametrize("options", [{}, {PORTMAP: None}, {PORTMAP: []}, {"another": [1]}])
def test_no_portmap_is_no_binding(options: dict[str, Any]) -> None:
    assert bindings(Body(options), lambda: EPHEMERAL) == []


def test_every_binding_of_a_list_is_read_in_order() -> None:
    body = Body(portmap(port(80, 8080), port(53, 53, proto=17)))
    assert [(b.proto, b.first) for b in bindings(body, lambda: EPHEMERAL)] == [
        ("tcp", 8080),
        ("udp", 53),
    ]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Proto": 1}, "protocol number 1 cannot be published; these can: tcp, udp, sctp"),
        ({"Proto": "tcp"}, f'{PORTMAP}.Proto "tcp" is not a whole number'),
        ({"Proto": None}, f"{PORTMAP}.Proto is missing"),
        ({"Port": 0}, "port 8080-8080:0 is not within 1 to 65535"),
        ({"Port": 65536}, "port 8080-8080:65536 is not within"),
        ({"Port": "80"}, f'{PORTMAP}.Port "80" is not a whole number'),
        ({"HostPort": -1}, "port -1-8080:80 is not within"),
        ({"HostPort": 70000, "HostPortEnd": 70000}, "port 70000-70000:80 is not within"),
        ({"HostPort": 8081}, "port 8081-8080:80 is not within"),
        ({"HostPort": True}, f"{PORTMAP}.HostPort true is not a whole number"),
        ({"HostPortEnd": 1.5}, f"{PORTMAP}.HostPortEnd 1.5 is not a whole number"),
        ({"HostIP": "::1"}, "host address '::1' is IPv6, and the network has no IPv6"),
        ({"HostIP": ":\n" + "x" * 1000}, "host address ':\\nxxx"),
        ({"HostIP": "localhost"}, f'{PORTMAP}.HostIP "localhost" is not an IPv4 address'),
        ({"HostIP": 7}, f"{PORTMAP}.HostIP 7 is not a text"),
    ],
)
def test_a_binding_is_refused(fields: dict[str, Any], words: str) -> None:
    assert words in refusal(bindings, binding(**fields), lambda: EPHEMERAL)


@pytest.mark.parametrize("value", ["x", 1, {}, ["x"], [None]])
def test_a_portmap_of_a_wrong_type_is_refused(value: Any) -> None:
    message = refusal(bindings, Body({PORTMAP: value}), lambda: EPHEMERAL)
    assert message.startswith(f"{PORTMAP} ")
    assert message.endswith("is not a list of objects")
