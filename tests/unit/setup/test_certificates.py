"""The certificates that openssl makes for us."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from driver.errors import HostError
from driver.setup.certificates import FILES, make
from driver.setup.commands import run
from tests.unit.setup.fake_machine import IP


def test_all_are_made_once_and_only_root_can_read_them(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    assert make(folder, (IP,))
    assert sorted(f.name for f in folder.iterdir()) == sorted(FILES)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} == {0o600}
    before = {f.name: f.read_text() for f in folder.iterdir()}
    assert not make(folder, (IP,))
    for name in ("server", "client", "root"):
        run("openssl", "verify", "-CAfile", str(folder / "ca.pem"), str(folder / f"{name}.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    shown = run("openssl", "x509", "-in", str(folder / "server.pem"), "-noout", "-text")
    assert f"IP Address:{IP}" in shown
    assert "P-256" in shown
    subject = ("openssl", "x509", "-noout", "-subject", "-in")
    assert run(*subject, str(folder / "client.pem")).strip().endswith("= flannel")
    assert run(*subject, str(folder / "root.pem")).strip().endswith("= root")
    assert {f.name: f.read_text() for f in folder.iterdir()} == before


@pytest.mark.parametrize("name", FILES)
def test_a_missing_one_is_made_again(name: str, tmp_path: Path) -> None:
    make(tmp_path, (IP,))
    before = {f.name: f.read_text() for f in tmp_path.iterdir()}
    (tmp_path / name).unlink()
    (tmp_path / "making").mkdir()  # of a run that was killed
    assert make(tmp_path, (IP,))
    changed = {f.name for f in tmp_path.iterdir() if f.read_text() != before[f.name]}
    stem = name.partition(".")[0]
    assert changed == (set(FILES) if stem == "ca" else {f"{stem}.pem", f"{stem}.key"})
    run("openssl", "verify", "-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "client.pem"))


def test_a_server_with_another_address(tmp_path: Path) -> None:
    make(tmp_path, (IP,))
    before = {f.name: f.read_text() for f in tmp_path.iterdir()}
    both = (IP + 1, IP)
    assert make(tmp_path, both)
    changed = {f.name for f in tmp_path.iterdir() if f.read_text() != before[f.name]}
    assert changed == {"server.pem", "server.key"}
    assert not make(tmp_path, both)
    assert not make(tmp_path, (IP,)), "one address less is no reason"
    (tmp_path / "server.pem").write_text("damaged")
    assert make(tmp_path, both)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="file/x cannot be written"):
        make(tmp_path / "file" / "x", (IP,))


def test_a_program_that_fails() -> None:
    with pytest.raises(HostError, match="nonsense-program is not installed"):
        run("nonsense-program")
    with pytest.raises(HostError, match=r"`openssl x509 -in` failed: .*No such file"):
        run("openssl", "x509", "-in", "/nonexistent")
    with pytest.raises(HostError, match="`sleep 60` has not ended within 0 s"):
        run("sleep", "60", limit_s=0.05)
