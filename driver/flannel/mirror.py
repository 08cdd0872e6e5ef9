"""A copy of what etcd holds of the flannel network, kept up to date by events.

It reads etcd when asked to; whoever watches etcd applies the events. For one thread.
"""

from __future__ import annotations

from driver.errors import BadRecord
from driver.flannel.etcd.registry import Entry, EventBatch, KeyRange, Registry
from driver.flannel.lease_types import EtcdView
from driver.flannel.network_config import read_config
from driver.flannel.records import ParseCache, config_key, lease_range
from driver.model.records import Overlay


class Mirror:
    """The network config and all keys where leases are."""

    def __init__(self, registry: Registry, prefix: str) -> None:
        self._registry, self._prefix = registry, prefix
        self._config = KeyRange(config_key(prefix))
        self._leases = KeyRange(lease_range(prefix), prefix=True)
        self._entries: dict[str, Entry] = {}
        self._cache: ParseCache = {}
        self._overlay: tuple[Overlay | None, str] = (None, "")
        self._view: EtcdView | None = None
        self._seen: dict[KeyRange, int] = {}

    def invalidate(self) -> None:
        """Have the next `sync` read everything."""
        self._seen.clear()

    def sync(self) -> dict[KeyRange, int]:
        """Read the config, and the leases if need be; return the revisions to watch from.

        Errors: FlannelError.
        """
        if self._leases not in self._seen:
            self.relist()
        self.read_config()
        return {keys: revision + 1 for keys, revision in self._seen.items()}

    def relist(self) -> None:
        """Read the leases. Errors: FlannelError."""
        entries, revision = self._registry.read(self._leases)
        self._entries = {entry.key: entry for entry in entries}
        self._cache = {e: self._cache[e] for e in entries if e in self._cache}
        self._view = None
        self._seen[self._leases] = revision

    def read_config(self) -> None:
        """Read the config. Errors: FlannelError."""
        entries, revision = self._registry.read(self._config)
        self._put_config(entries[0].value if entries else None)
        self._seen[self._config] = revision

    def _put_config(self, text: bytes | None) -> None:
        self._view, place = None, f"in etcd at {self._config.key}"
        if text is None:
            self._overlay = None, f"there is no network config {place}"
            return
        try:
            self._overlay = read_config(text), ""
        except BadRecord as error:
            self._overlay = None, f"the network config {place} is bad: {error}"

    def apply(self, batch: EventBatch) -> None:
        """Apply events, except those older than the last read."""
        for event in batch.events:
            if event.revision <= self._seen[batch.keys]:
                continue
            if batch.keys == self._config:
                self._put_config(event.value)
            else:
                self.put(event)
        self._seen[batch.keys] = max(batch.revision, self._seen[batch.keys])

    def put(self, entry: Entry) -> None:
        """Set one lease's entry, or remove it if its value is None."""
        self._view = None
        old = self._entries.pop(entry.key, None)
        if old is not None:
            self._cache.pop(old, None)
        if entry.value is not None:
            self._entries[entry.key] = entry

    def view(self) -> EtcdView:
        """Return what etcd holds: the same object until that changes."""
        if self._view is None:
            self._view = EtcdView(self._prefix, *self._overlay, self._entries, self._cache)
        return self._view
