"""Secrets that every user of the host can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from driver.host.exposed_secrets import secrets_shown

NAME = "FLANNELD_ETCD_PASSWORD"


@pytest.mark.parametrize(
    ("text", "mode", "shown"),
    [
        (f"{NAME}=S3cret\n", 0o644, True),
        (f"  export {NAME}='S3cret'\n", 0o604, True),
        (f"{NAME}=S3cret\n", 0o640, False),
        (f'{NAME}=""\n#{NAME}=S3cret\nX=1\n', 0o644, False),
    ],
)
def test_a_file_that_everybody_reads(tmp_path: Path, text: str, mode: int, shown: bool) -> None:
    file = tmp_path / "flanneld"
    file.write_text(text)
    file.chmod(mode)
    told = secrets_shown([NAME], [tmp_path / "none", file])
    assert told == ([f"{file} holds {NAME}, and every user of this host can read it: run "
                     f"`chmod 600 {file}`"] if shown else [])  # fmt: skip
