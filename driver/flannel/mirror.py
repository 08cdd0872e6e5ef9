"""What etcd has of the flannel network, as it was read last and as events have changed it.

Imports `flannel`, `flannel_config`, `lease_view`, `registry`, `errors`.
"""

from __future__ import annotations

from driver.errors import BadRecord
from driver.flannel.etcd.registry import Entry, EventBatch, KeyRange, Registry
from driver.flannel.lease_types import EtcdView
from driver.flannel.network_config import read_config
from driver.flannel.records import ParseCache, config_key, lease_range
from driver.model.records import Overlay


class Mirror:
    """The config and all that lies where leases lie. Of one thread."""

    def __init__(self, registry: Registry, prefix: str) -> None:
        self._registry, self._prefix = registry, prefix
        self._config = KeyRange(config_key(prefix))
        self._leases = KeyRange(lease_range(prefix), prefix=True)
        self._entries: dict[str, Entry] = {}
        self._known: ParseCache = {}
        self._overlay: tuple[Overlay | None, str] = (None, "")
        self._view: EtcdView | None = None
        self._seen: dict[KeyRange, int] = {}

    def forget(self) -> None:
        """Have all read anew when it is next looked at."""
        self._seen.clear()

    def begin(self) -> dict[KeyRange, int]:
        """Read what is not known; return from which revisions on events are wanted.

        Errors: Compacted, FlannelError.
        """
        if self._leases not in self._seen:
            self.list()
        self.read_config()
        return {span: revision + 1 for span, revision in self._seen.items()}

    def list(self) -> None:
        """Read the leases. Errors: FlannelError."""
        entries, revision = self._registry.read(self._leases)
        self._entries = {entry.key: entry for entry in entries}
        self._known = {e: self._known[e] for e in entries if e in self._known}
        self._view = None
        self._seen[self._leases] = revision

    def read_config(self) -> None:
        """Read the config. Errors: FlannelError."""
        entries, revision = self._registry.read(self._config)
        self._take_config(entries[0].value if entries else None)
        self._seen[self._config] = revision

    def _take_config(self, text: bytes | None) -> None:
        self._view, place = None, f"in etcd at {self._config.key}"
        if text is None:
            self._overlay = None, f"there is no network config {place}"
            return
        try:
            self._overlay = read_config(text), ""
        except BadRecord as error:
            self._overlay = None, f"the network config {place} is bad: {error}"

    def take(self, batch: EventBatch) -> None:
        """Take over events, but for those older than the last list."""
        for event in batch.events:
            if event.revision <= self._seen[batch.span]:
                continue
            if batch.span == self._config:
                self._take_config(event.value)
            else:
                self.put(event)
        self._seen[batch.span] = max(batch.revision, self._seen[batch.span])

    def put(self, entry: Entry) -> None:
        """Take over one lease, or its end."""
        self._view = None
        old = self._entries.pop(entry.key, None)
        if old is not None:
            self._known.pop(old, None)
        if entry.value is not None:
            self._entries[entry.key] = entry

    def look(self) -> EtcdView:
        """Return what etcd has; leases are read anew only after a change."""
        if self._view is None:
            self._view = EtcdView(self._prefix, *self._overlay, self._entries, self._known)
        return self._view
