"""lvmlockd's requests and replies, between text fields and values.

A request names itself by `request`.  A reply says `response = "OK"` and, but for hello, quit, info and dump,
`op_result`; the operation's number, which it repeats, the asking side does not look at.

Source: LVM2 daemons/lvmlockd/lvmlockd-core.c (str_to_op_rt, client_recv_action, client_send_result),
lvmlockd-internal.h (numbers), lib/locking/lvmlockd.c, 2.03.11 to 2.03.40."""

import functools
from typing import Any

from ringfence.core.errors import BadInput
from ringfence.lvm2.lockd_text import parse_line, print_fields
from ringfence.wire.lvmlockd import LvmAnswered, LvmAsked

HELLO = "hello"
QUIT = "quit"
DUMPS = ("info", "dump")
PROTOCOL, VERSION = "lvmlockd", 1

_OPS = {
    "init_vg": 3, "init_lv": 3, "free_vg": 4, "free_lv": 4, "start_vg": 5, "stop_vg": 6, "lock_gl": 7,
    "lock_vg": 7, "lock_lv": 7, "vg_update": 8, "enable_gl": 10, "disable_gl": 11, "start_wait": 12,
    "stop_all": 13, "rename_vg_before": 16, "rename_vg_final": 17, "running_lm": 18, "find_free_lock": 19,
    "kill_vg": 20, "drop_vg": 21, "busy_vg": 22, "query_lock_vg": 23, "query_lock_lv": 23, "refresh_lv": 24,
    "vg_status": 25, "setlockargs_vg_before": 28, "setlockargs_vg_final": 29, "set_remote_lv_lock": 30,
}  # fmt: skip
_ARGUED = ("init_vg", "init_lv", "setlockargs_vg_final")
"""Their replies say what is to be written into the metadata."""
_TEXTS = frozenset((
    "cmd", "mode", "vg_name", "vg_uuid", "vg_lock_type", "vg_lock_args", "lv_name", "lv_uuid", "path",
))  # fmt: skip
DIGITS = 10
"""Longest number; LVM2's own are of 32 bits."""


def parse_request(frame: bytes, pid: int = 0, started: int = 0) -> LvmAsked:
    """Read one request.

    Args:
        frame: without its end.
        pid, started: of the peer, by the kernel's word; what the request says of its pid is not looked at.

    Raises BadInput for what is no request at all."""
    # LVM2's names are ASCII; what is not UTF-8 could be neither logged nor sent on.
    lines = frame.decode("utf-8", "replace").split("\n")
    said = dict([field for field in map(_said, lines) if field is not None])
    if not said.get("op"):
        raise BadInput("not a request: it names none", next='send request = "hello"')
    return LvmAsked(pid=pid, started=started, **said)


@functools.lru_cache(maxsize=64)
def _said(line: str) -> tuple[str, Any] | None:
    """What a line of a request says, as a field of `LvmAsked`; None: nothing that is looked at.

    Requests that come by the thousand differ in two lines."""
    field = parse_line(line)
    if field is None:
        return None
    name, value = field
    if name == "request":
        return "op", value
    if name in _TEXTS:
        return name, "" if value == "none" else value
    if name == "version":
        return name, int(value) if value.isdecimal() and len(value) <= DIGITS else 0
    if name == "opts":
        return name, () if value == "none" else tuple(value.replace(",", " ").split())
    return None


def print_answer(answered: LvmAnswered) -> bytes:
    """One reply, its end included."""
    if answered.dump is None:
        return _print_usual(answered)
    fields: list[tuple[str, int | str]] = [("response", "OK"), ("result", answered.result)]
    return print_fields([*fields, ("dump_len", len(answered.dump))])


@functools.lru_cache(maxsize=64)
def _print_usual(answered: LvmAnswered) -> bytes:
    """Most are the same few, thousands of times in a row."""
    op, result = answered.op, answered.result
    fields: list[tuple[str, int | str]] = [("response", "OK")]
    if op in (HELLO, QUIT):
        fields += [("result", result), ("protocol", PROTOCOL), ("version", VERSION)]
    elif op in DUMPS:
        fields += [("result", result), ("dump_len", 0)]
    else:
        fields += [("op", _OPS.get(op, 0)), ("lock_type", "dlm"), ("op_result", result)]
        if op.startswith("query_lock"):
            fields.append(("mode", answered.mode or "un"))
        else:
            fields.append(("lm_result", 0))
            if op in _ARGUED:
                fields.append(("vg_lock_args", answered.vg_lock_args or "none"))
                fields.append(("lv_lock_args", "none"))
            if answered.holder:
                fields.append(("owner_host_id", answered.holder))
                fields.append(("owner_name", answered.holder_name))
            fields.append(("result_flags", "".join(f"{flag}," for flag in answered.flags) or "none"))
    return print_fields(fields)
