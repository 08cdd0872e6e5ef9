"""Secrets that every user of the host can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from driver.setup import settings_file
from driver.setup.exposed_secrets import secrets_shown

NAME = "FLANNELD_ETCD_PASSWORD"


@pytest.mark.parametrize(
    ("text", "mode", "shown"),
    [
        (f"{NAME}=S3cret\n", 0o644, True),
        (f"  {NAME} = 'S3cret' # ours\n", 0o604, True),
        (f'X="one\\\ntwo"{NAME}=three\n{NAME}="S3\\\ncret"\n', 0o644, True),
        (f"{NAME}=S3cret\n", 0o640, False),
        (f'{NAME}=""\n#{NAME}=S3cret\nX=1\n', 0o644, False),
        (f'X="\n{NAME}=S3cret"\n', 0o644, False),
        ("X=1\0\n", 0o644, False),
    ],
)
def test_a_file_that_everybody_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, mode: int, shown: bool
) -> None:
    file = tmp_path / "flanneld"
    monkeypatch.setattr(settings_file, "IN_ORDER", (tmp_path / "none", file))
    file.write_text(text)
    file.chmod(mode)
    assert list(secrets_shown()) == ([f"{file} holds {NAME}, and every user of this host can read "
                                      f"it: run `chmod 600 {file}`"] if shown else [])  # fmt: skip
