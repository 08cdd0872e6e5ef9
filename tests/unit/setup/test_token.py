"""The token: what it holds comes back, and nothing else does."""

from __future__ import annotations

import base64
import json
import random
import zlib
from pathlib import Path

import pytest

from driver.errors import BadRequest, Unavailable
from driver.setup.certificates import make
from driver.setup.token import Token
from tests.unit.setup.fake_machine import IP

KEY = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
PLAIN = Token("http://192.0.2.1:2379", "/coreos.com/network")
WHOLE = Token(
    "https://192.0.2.1:2379,https://192.0.2.2:2379", "/f", CERTIFICATE, CERTIFICATE, KEY, "u", "p"
)


@pytest.mark.parametrize("token", [PLAIN, WHOLE])
def test_what_a_token_holds_comes_back(token: Token) -> None:
    line = token.encode()
    assert line.startswith("dfl1.")
    assert line.isascii()
    assert not set(line) & set("\"'\\ \n$`")
    assert Token.decode(line) == token
    wrapped = "\n ".join(line[n : n + 60] for n in range(0, len(line), 60))
    assert Token.decode(f"  {wrapped}\n") == token


def test_a_cut_or_damaged_token() -> None:
    line, source = WHOLE.encode(), random.Random(3)  # noqa: S311
    for length in range(len(line)):
        with pytest.raises(BadRequest, match=r"is no token|cut or damaged"):
            Token.decode(line[:length])
    for _ in range(300):
        at = source.randrange(5, len(line))
        letter = source.choice("abcXYZ019-_!é\0")
        if letter != line[at]:
            with pytest.raises(BadRequest, match="cut or damaged") as caught:
                Token.decode(line[:at] + letter + line[at + 1 :])
            assert line[9:30] not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "is no token"),
        ("hello", "begins with dfl1."),
        ("dfl2.abc", "of version 2, and this docker-flannel reads version 1"),
        ("dfl99999999999.abc", "is no token"),
    ],
)
def test_no_token(line: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        Token.decode(line)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        7,
        {},
        {"endpoints": "http://a"},
        {"endpoints": ["http://a"], "prefix": "/f"},
        {"endpoints": "ftp://a", "prefix": "/f"},
        {"endpoints": "http://a", "prefix": "/../f"},
        {"endpoints": "http://a", "prefix": "/f", "key": KEY},
        {"endpoints": "http://a", "prefix": "/f", "authority": "rm -rf"},
        {"endpoints": "http://a\nDOCKER_FLANNEL_LEASE=x", "prefix": "/f"},
        {"endpoints": "http://a", "prefix": "/f", "username": "u"},
        {"endpoints": "http://a", "prefix": "/f" + "f" * (1 << 18)},
    ],
)
def test_a_well_packed_token_that_init_never_prints(fields: object) -> None:
    packed = base64.urlsafe_b64encode(zlib.compress(json.dumps(fields).encode())).decode()
    with pytest.raises(BadRequest, match="cut or damaged"):
        Token.decode(f"dfl1.{packed.rstrip('=')}")


def test_a_token_that_is_nested_too_deeply() -> None:
    packed = base64.urlsafe_b64encode(zlib.compress(b"[" * 200_000)).decode()
    with pytest.raises(BadRequest, match="cut or damaged"):
        Token.decode(f"dfl1.{packed.rstrip('=')}")


def test_no_secret_is_in_what_is_logged() -> None:
    assert "secret" not in repr(WHOLE)
    assert KEY not in repr(WHOLE)
    assert "'p'" not in repr(WHOLE)


def test_the_clock(tmp_path: Path) -> None:
    make(tmp_path, (IP,))
    token = Token("https://192.0.2.1", "/f", (tmp_path / "ca.pem").read_text())
    made = (tmp_path / "ca.pem").stat().st_mtime
    token.check_clock(made + 1)
    with pytest.raises(Unavailable, match=r"are valid from .* Jan  1 00:00:00 1970 GMT by this"):
        token.check_clock(0)
    with pytest.raises(Unavailable, match="were valid until"):
        token.check_clock(made + 4000 * 86400)
    PLAIN.check_clock(0)
    with pytest.raises(BadRequest, match="no certificate in PEM form"):
        WHOLE.check_clock(made)


def test_the_hosts_of_a_token() -> None:
    assert WHOLE.hosts == "192.0.2.1:2379, 192.0.2.2:2379"
