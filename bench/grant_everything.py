"""A lock daemon that says yes to everything and knows nothing: what LVM2 costs by itself.

    python -I -S bench/grant_everything.py SOCKET

It speaks lvmlockd's protocol as far as LVM2 needs to be content, and looks at nothing but a request's name.
A thread a connection, one read and one write a request: less cannot be done in Python.

Source: the replies of LVM2 daemons/lvmlockd/lvmlockd-core.c, as seen on the socket."""

import socket
import sys
import threading

END = b"\n##\n"
GRANTED = (
    b'response = "OK"\nop = 0\nlock_type = "dlm"\nop_result = 0\nlm_result = 0\nresult_flags = "none"' + END
)
SPECIAL = {
    b"hello": b'response = "OK"\nresult = 0\nprotocol = "lvmlockd"\nversion = 1' + END,
    b"init_vg": b'response = "OK"\nop = 0\nop_result = 0\nlm_result = 0\nvg_lock_args = "1.0.0:test"\n'
    b'lv_lock_args = "none"\nresult_flags = "none"' + END,
    b"running_lm": GRANTED.replace(b"op_result = 0", b"op_result = 2"),
}


def serve(connection: socket.socket) -> None:
    data = b""
    with connection:
        while True:
            read = connection.recv(65536)
            if not read:
                return
            data += read
            if data.endswith(END):  # one request at a time, says the protocol
                name = data.split(b'"', 2)[1]
                connection.sendall(SPECIAL.get(name, GRANTED))
                data = b""


def main() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen(64)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
