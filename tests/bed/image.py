"""An image without a registry: one static busybox, and links to it by all its names."""

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

NAME = "box:latest"

_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "www/index.html": "box\n",
}
_FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "var/log", "www")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def archive(file: Path) -> Path:
    """Write the image for `docker load` to `file`, unless it is there, and return its path.

    Containers of it are stopped by SIGKILL: as first process, most commands ignore SIGTERM and
    would keep `docker stop` waiting for 10 s. Needs a statically linked busybox on the machine;
    raises FileNotFoundError without one.
    """
    if file.exists():
        return file
    layer = _layer()
    settings = {
        "architecture": _MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "StopSignal": "SIGKILL"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    part = file.with_suffix(".part")
    with tarfile.open(part, "w") as tar:
        _add(tar, "layer.tar", layer)
        _add(tar, "config.json", json.dumps(settings).encode())
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return part.rename(file)


def _layer() -> bytes:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError("busybox: install busybox-static")
    names = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in _FOLDERS:
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        tar.add(Path(busybox).resolve(), "bin/busybox")
        for name in set(names.stdout.split()) - {"busybox"}:
            info = tarfile.TarInfo(f"bin/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
        for name, text in _FILES.items():
            _add(tar, name, text.encode())
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))
