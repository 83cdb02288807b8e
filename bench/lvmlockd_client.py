"""A client that speaks lvmlockd's protocol itself and takes the time of each request.

    python -I -S bench/lvmlockd_client.py SOCKET VG LV_UUID ROUNDS

It prints {"vg": [us, …], "lv": [us, …]}: of lock_vg sh and un, and of lock_lv ex and un, both as LVM2 asks
for an activation.  The first tenth is not told: a warm host is what is asked for.

Source: the requests of LVM2 lib/locking/lvmlockd.c, as seen on the socket."""

import json
import os
import re
import socket
import sys
import time

END = b"\n##\n"
HELLO = 'request="hello"'


class Refused(Exception):
    """The daemon said no, or nothing."""


def vg_request(mode: str, vg: str) -> str:
    return (
        f'request="lock_vg"\ncmd ="vgchange"\npid ={os.getpid()}\nmode ="{mode}"\nopts ="none"\n'
        f'vg_name ="{vg}"\nvg_lock_type ="none"\nvg_lock_args ="none"'
    )


def lv_request(mode: str, vg: str, uuid: str, args: str) -> str:
    return (
        f'request="lock_lv"\ncmd ="vgchange"\npid ={os.getpid()}\nmode ="{mode}"\nopts ="persistent"\n'
        f'vg_name ="{vg}"\nlv_name ="{uuid}"\nlv_uuid ="{uuid}"\nvg_lock_type ="dlm"\n'
        f'vg_lock_args ="{args}"\nlv_lock_args ="dlm"'
    )


def ask(connection: socket.socket, request: bytes) -> bytes:
    connection.sendall(request)
    reply = b""
    while not reply.endswith(END):
        read = connection.recv(4096)
        if not read:
            raise Refused("the daemon hung up")
        reply += read
    if not re.search(rb"\b(op_)?result *= *0\n", reply):
        raise Refused(reply.decode(errors="replace"))
    return reply


def times_us(connection: socket.socket, requests: list[str], rounds: int) -> list[float]:
    encoded = [request.encode() + END for request in requests]
    took: list[float] = []
    for _ in range(rounds):
        for request in encoded:
            began = time.perf_counter_ns()
            ask(connection, request)
            took.append((time.perf_counter_ns() - began) / 1000)
    return took[len(took) // 10 :]


def main() -> None:
    path, vg, uuid, rounds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        ask(connection, HELLO.encode() + END)
        vgs = times_us(connection, [vg_request("sh", vg), vg_request("un", vg)], rounds)
        ask(connection, vg_request("sh", vg).encode() + END)
        lvs = times_us(
            connection, [lv_request(mode, vg, uuid, "1.0.0:test") for mode in ("ex", "un")], rounds
        )
    print(json.dumps({"vg": vgs, "lv": lvs}))


if __name__ == "__main__":
    main()
