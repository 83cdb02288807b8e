"""A socket like lvmlockd's that grants everything at once: what LVM2 does to a shared VG without locks."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

END = b"\n##\n"
HELLO = ('response="OK"', "result=0", 'protocol="lvmlockd"', "version=1")
DLM = 2


def _granted(result: int) -> tuple[str, ...]:
    return (
        'response="OK"', "op=0", 'lock_type="dlm"', f"op_result={result}", "lm_result=0",
        'result_flags="none"', 'vg_lock_args="1.0.0:nobody"', 'lv_lock_args="none"',
    )  # fmt: skip


@contextlib.contextmanager
def granting(run: Path) -> Iterator[Path]:
    """Serve at RUN/lvm/lvmlockd.socket, with RUN/lvmlockd.pid, until the block is left."""
    (run / "lvm").mkdir(parents=True)
    (run / "lvmlockd.pid").write_text("1\n")
    place = run / "lvm/lvmlockd.socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen(64)
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        try:
            yield place
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=_serve, args=(listener.accept()[0],), daemon=True).start()


def _serve(peer: socket.socket) -> None:
    pending = b""
    with peer, contextlib.suppress(OSError):
        while part := peer.recv(1 << 16):
            pending += part
            while END in pending:
                request, pending = pending.split(END, 1)
                result = DLM if b'"running_lm"' in request else 0
                said = HELLO if b'"hello"' in request else _granted(result)
                peer.sendall("\n".join(said).encode() + END)
