"""What happened on this cluster, as this host saw it: events, fence records, incidents."""

from ringfence.history.store import History

__all__ = ["History"]
