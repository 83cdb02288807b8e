"""One connection to this host's corosync: its process group, its quorum, its token times.

`open`, `leave` and `close` may stand still for as long as corosync does (it answers them in person), so they
run in threads of their own.  What is left is safe in the event loop: `dispatch` reads what has come, `mcast`
puts bytes into memory shared with corosync.  Of `mcast` that holds only up to a number of messages: with
corosync stopped, the 279th small one spins inside the library (seen with 3.1.7); who calls it counts."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from ringfence.core.errors import RingfenceError, Unavailable
from ringfence.ring.corosync.exchange import Confchg, RingFormed
from ringfence.ring.corosync.library import (
    ACCESS,
    AGREED,
    INITIAL_TOTEM_CONF,
    MODEL_V1,
    OK,
    ONE_NONBLOCKING,
    QUORUM_SET,
    TRACK_CHANGES,
    TRY_AGAIN,
    Library,
    error_name,
    library,
)
from ringfence.wire.corosync import Process, RingId

GROUP = b"ringfence"
PAUSE_S = 0.02
Fact = Confchg | RingFormed | tuple[Process, bytes]
"""A change, or a message with its sender."""


class Gone(Exception):
    """corosync has ended, or ended this connection."""


class Session:
    """Joined to the group.  Facts and quorum are handed over in `dispatch`, in the calling thread.

    Raises (from `open`): Unavailable, with what to do."""

    def __init__(self) -> None:
        self._library: Library = library()
        self._cpg: Any = None
        self._quorum: Any = None
        self._kept: list[Any] = []
        """Callbacks and names: C points to them."""
        self.facts: list[Fact] = []
        """Delivered by `dispatch` and not yet taken."""
        self.quorate: bool | None = None
        """As corosync said last; None: it has no quorum provider."""
        self.me = Process(0, 0)
        self.token_ms = 0
        self.consensus_ms = 0
        self.fd = -1
        self.quorum_fd = -1

    # -- in a thread -----------------------------------------------------------------

    def open(self, pid: int, check: Callable[["Session"], None], abandoned: Callable[[], bool]) -> None:
        """Connect and join.

        Args:
            pid: of this process.
            check: looks at `me` and the token times before the join; may raise.
            abandoned: nobody waits for this any more."""
        try:
            self._open_cpg(pid)
            self._read_times()
            check(self)
            self._open_quorum()
            name = self._library.ffi.new("struct cpg_name *", {"length": len(GROUP), "value": GROUP})
            self._kept.append(name)
            self._again(lambda: self._library.cpg.cpg_join(self._cpg, name), abandoned, "join its group")
        except BaseException:
            self.close()
            raise

    def _open_cpg(self, pid: int) -> None:
        ffi, cpg = self._library.ffi, self._library.cpg
        deliver = ffi.callback("cpg_deliver_fn_t", self._delivered)
        confchg = ffi.callback("cpg_confchg_fn_t", self._confchg)
        totem = ffi.callback("cpg_totem_confchg_fn_t", self._totem)
        model = ffi.new("cpg_model_v1_data_t *", (MODEL_V1, deliver, confchg, totem, INITIAL_TOTEM_CONF))
        self._kept += [deliver, confchg, totem, model]
        handle = ffi.new("cpg_handle_t *")
        self._check(cpg.cpg_model_initialize(handle, MODEL_V1, model, ffi.NULL))
        self._cpg = handle[0]
        node = ffi.new("unsigned int *")
        self._check(cpg.cpg_local_get(self._cpg, node))
        self.me = Process(node[0], pid)
        fd = ffi.new("int *")
        self._check(cpg.cpg_fd_get(self._cpg, fd))
        self.fd = fd[0]

    def _open_quorum(self) -> None:
        ffi, quorum = self._library.ffi, self._library.quorum
        notify = ffi.callback("quorum_notification_fn_t", self._notified)
        callbacks = ffi.new("quorum_callbacks_t *", (notify,))
        self._kept += [notify, callbacks]
        handle, kind = ffi.new("quorum_handle_t *"), ffi.new("uint32_t *")
        self._check(quorum.quorum_initialize(handle, callbacks, kind))
        self._quorum = handle[0]
        if kind[0] != QUORUM_SET:
            return
        quorate = ffi.new("int *")
        self._check(quorum.quorum_getquorate(self._quorum, quorate))
        self.quorate = bool(quorate[0])
        fd = ffi.new("int *")
        self._check(quorum.quorum_fd_get(self._quorum, fd))
        self._check(quorum.quorum_trackstart(self._quorum, TRACK_CHANGES))
        self.quorum_fd = fd[0]

    def _read_times(self) -> None:
        """Token and consensus as they are in force; 0 where corosync does not say."""
        ffi, cmap = self._library.ffi, self._library.cmap
        handle, value = ffi.new("cmap_handle_t *"), ffi.new("uint32_t *")
        self._check(cmap.cmap_initialize(handle))
        try:
            if cmap.cmap_get_uint32(handle[0], b"runtime.config.totem.token", value) == OK:
                self.token_ms = value[0]
            if cmap.cmap_get_uint32(handle[0], b"runtime.config.totem.consensus", value) == OK:
                self.consensus_ms = value[0]
        finally:
            cmap.cmap_finalize(handle[0])

    def leave(self, abandoned: Callable[[], bool]) -> None:
        """Ask to be taken out of the group; the confchg without this process follows."""
        name = self._library.ffi.new("struct cpg_name *", {"length": len(GROUP), "value": GROUP})
        with contextlib.suppress(RingfenceError):
            self._again(lambda: self._library.cpg.cpg_leave(self._cpg, name), abandoned, "leave its group")

    def close(self) -> None:
        """End the connection; to the others this process has ended, unless it had left."""
        cpg, self._cpg = self._cpg, None
        quorum, self._quorum = self._quorum, None
        if cpg is not None:
            self._library.cpg.cpg_finalize(cpg)
        if quorum is not None:
            self._library.quorum.quorum_finalize(quorum)

    def _again(self, call: Callable[[], int], abandoned: Callable[[], bool], what: str) -> None:
        """Until corosync can; it cannot while its ring forms."""
        while (code := call()) == TRY_AGAIN:
            if abandoned():
                raise Unavailable(f"corosync could not {what} yet")
            time.sleep(PAUSE_S)
        self._check(code)

    def _check(self, code: int) -> None:
        if code == OK:
            return
        if code == ACCESS:
            raise Unavailable(
                "corosync does not let this user in",
                next="run the daemon as root, or name its user in /etc/corosync/uidgid.d/ringfence "
                "(uidgid { uid: NAME }) and run `corosync-cfgtool -R`",
            )
        raise Unavailable(
            f"no corosync answers on this host ({error_name(code)})",
            next="start it with `systemctl start corosync`, this node then joins by itself",
        )

    # -- in the event loop -------------------------------------------------------------

    def dispatch(self) -> bool:
        """Take one fact in, if one waits.  Returns whether one did.  Raises Gone."""
        code = self._library.cpg.cpg_dispatch(self._cpg, ONE_NONBLOCKING)
        if code == OK:
            return True
        if code == TRY_AGAIN:
            return False
        raise Gone(error_name(code))

    def dispatch_quorum(self) -> None:
        """Bring `quorate` up to date.  Raises Gone."""
        while (code := self._library.quorum.quorum_dispatch(self._quorum, ONE_NONBLOCKING)) == OK:
            pass
        if code != TRY_AGAIN:
            raise Gone(error_name(code))

    def mcast(self, message: bytes) -> bool:
        """Send to the group.  False: not now, corosync has no room or its ring forms.  Raises Gone."""
        ffi = self._library.ffi
        body = ffi.from_buffer(message)
        vector = ffi.new("struct iovec *", (body, len(message)))
        code = self._library.cpg.cpg_mcast_joined(self._cpg, AGREED, vector, 1)
        if code == OK:
            return True
        if code == TRY_AGAIN:
            return False
        raise Gone(error_name(code))

    # -- called by the library -----------------------------------------------------------

    def _delivered(self, handle: int, group: Any, node: int, pid: int, message: Any, size: int) -> None:
        self.facts.append((Process(node, pid), bytes(self._library.ffi.buffer(message, size))))

    def _confchg(
        self,
        handle: int,
        group: Any,
        members: Any,
        n: int,
        left: Any,
        n_left: int,
        joined: Any,
        n_joined: int,
    ) -> None:
        self.facts.append(
            Confchg(
                tuple(Process(members[at].nodeid, members[at].pid) for at in range(n)),
                tuple((Process(left[at].nodeid, left[at].pid), left[at].reason) for at in range(n_left)),
                tuple(Process(joined[at].nodeid, joined[at].pid) for at in range(n_joined)),
            )
        )

    def _totem(self, handle: int, ring: Any, n: int, members: Any) -> None:
        ring_id = RingId(ring.seq, ring.nodeid)
        self.facts.append(RingFormed(ring_id, tuple(members[at] for at in range(n))))

    def _notified(self, handle: int, quorate: int, ring_seq: int, n: int, nodes: Any) -> None:
        self.quorate = bool(quorate)
