"""corosync as the ring.  Imported only by a daemon that uses it: it needs cffi and corosync's libraries."""

from ringfence.ring.corosync.ring import CorosyncRing

__all__ = ["CorosyncRing"]
