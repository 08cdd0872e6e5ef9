from collections.abc import Mapping
from typing import Any

class nlmsg(dict[str, Any]):  # noqa: N801
    data: bytearray
    def setvalue(self, value: Mapping[str, Any]) -> nlmsg: ...
    def encode(self) -> None: ...
