"""What this host looks like: gathered here, judged by `doctor`, compared through the ring.

Nothing is changed, and nothing is waited for longer than LIMIT_S: what hangs is itself a finding.  Works
without a daemon, for `doctor` looks with it when none answers; and for any user, where what only
root may see is said to be unseen."""

from ringfence.daemon.checkup.look import LIMIT_S, HostLook, look_at_host

__all__ = ["LIMIT_S", "HostLook", "look_at_host"]
