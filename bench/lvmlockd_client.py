"""A client that speaks lvmlockd's protocol itself and takes the time of each request.

    python -I -S bench/lvmlockd_client.py SOCKET VG < uuids of LVs, as JSON

It prints {"vg": [us, …], "lv": [us, …]}: of lock_vg sh and un, over and over, and of lock_lv ex for one LV
after the other, then un, as LVM2 asks when it activates a VG and deactivates it.  The first tenth of each is
not told: a warm host is what is asked for.  It exits with 3 if the server hangs up.

Source: the requests of LVM2 lib/locking/lvmlockd.c, as seen on the socket."""

import json
import os
import re
import socket
import sys
import time

END = b"\n##\n"
HELLO = 'request="hello"'
HUNG_UP = 3
"""The exit code."""


class Refused(Exception):
    """The daemon said no."""


def vg_request(mode: str, vg: str) -> str:
    return (
        f'request="lock_vg"\ncmd ="vgchange"\npid ={os.getpid()}\nmode ="{mode}"\nopts ="none"\n'
        f'vg_name ="{vg}"\nvg_lock_type ="none"\nvg_lock_args ="none"'
    )


def lv_request(mode: str, vg: str, uuid: str) -> str:
    return (
        f'request="lock_lv"\ncmd ="vgchange"\npid ={os.getpid()}\nmode ="{mode}"\nopts ="persistent"\n'
        f'vg_name ="{vg}"\nlv_name ="{uuid}"\nlv_uuid ="{uuid}"\nvg_lock_type ="dlm"\n'
        f'vg_lock_args ="1.0.0:bench"\nlv_lock_args ="dlm"'
    )


def ask(connection: socket.socket, request: bytes) -> bytes:
    connection.sendall(request)
    reply = b""
    while not reply.endswith(END):
        read = connection.recv(4096)
        if not read:
            raise ConnectionResetError("the end of the stream")
        reply += read
    if not re.search(rb"\b(op_)?result *= *0\n", reply):
        raise Refused(reply.decode(errors="replace"))
    return reply


def times_us(connection: socket.socket, requests: list[str]) -> list[float]:
    took = []
    for request in [request.encode() + END for request in requests]:
        began = time.perf_counter_ns()
        ask(connection, request)
        took.append((time.perf_counter_ns() - began) / 1000)
    return took[len(took) // 10 :]


def main() -> None:
    path, vg = sys.argv[1:]
    uuids = json.load(sys.stdin)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        times_us(connection, [HELLO])
        vgs = times_us(connection, [vg_request(mode, vg) for _ in uuids for mode in ("sh", "un")])
        lvs = []
        for mode in ("ex", "un"):
            times_us(connection, [vg_request("sh", vg)])
            lvs += times_us(connection, [lv_request(mode, vg, uuid) for uuid in uuids])
            times_us(connection, [vg_request("un", vg)])
    print(json.dumps({"vg": vgs, "lv": lvs}))


if __name__ == "__main__":
    try:
        main()
    except ConnectionError as error:
        print(f"the server hung up: {error}", file=sys.stderr)
        sys.exit(HUNG_UP)
