"""Inside a guest: runs what the rig asks for over a virtio-serial port, which no cut of a network reaches.

A line of JSON a request: {"id", "run": [words], "input", "env", "limit_s"}, or with "spawn": true in place of
waiting; a line a reply: {"id", "code", "out", "err"} or {"id", "pid"}.  Only the standard library: it starts
before the project's directory counts for anything."""

import json
import os
import subprocess
import threading

PORT = "/dev/virtio-ports/rig"


def main() -> None:
    port = _find()
    sending = threading.Lock()
    with open(port, "r+b", buffering=0) as file:
        reader = os.fdopen(os.dup(file.fileno()), "rb")
        _send(file, sending, {"id": 0, "code": 0, "out": "ready", "err": ""})
        for line in reader:
            request = json.loads(line)
            threading.Thread(target=_serve, args=(file, sending, request), daemon=True).start()


def _find() -> str:
    if os.path.exists(PORT):
        return PORT
    for name in sorted(os.listdir("/sys/class/virtio-ports")):
        with open(f"/sys/class/virtio-ports/{name}/name") as file:
            if file.read().strip() == "rig":
                return f"/dev/{name}"
    raise SystemExit("no port")


def _serve(file, sending, request) -> None:
    environment = {**os.environ, **request.get("env", {})}
    try:
        if request.get("spawn"):
            with open(request["spawn"], "ab") as log:
                child = subprocess.Popen(
                    request["run"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                    start_new_session=True,
                )
            threading.Thread(target=child.wait, daemon=True).start()
            answer = {"pid": child.pid}
        else:
            ran = subprocess.run(
                request["run"], input=request.get("input", "").encode(), capture_output=True, env=environment,
                timeout=request.get("limit_s", 60),
            )
            answer = {
                "code": ran.returncode, "out": ran.stdout.decode(errors="replace"),
                "err": ran.stderr.decode(errors="replace"),
            }
    except (OSError, subprocess.SubprocessError) as error:
        answer = {"code": -1, "out": "", "err": repr(error)}
    _send(file, sending, {"id": request["id"], **answer})


def _send(file, sending, answer) -> None:
    data = json.dumps(answer).encode() + b"\n"
    with sending:
        while data:
            data = data[file.write(data) :]


if __name__ == "__main__":
    main()
