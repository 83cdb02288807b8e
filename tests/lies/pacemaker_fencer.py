"""Pacemaker's own fencer asked to fence n1 by each lie, in namespaces of its own:  pacemaker_fencer.py DIR

Prints {lie: {"code", "off": whether n1 is}} as JSON; 0 is what Pacemaker takes for fenced.  Its daemon runs
without a cluster, as in Pacemaker's regression tests; stonith_admin speaks to it.

Source: Pacemaker 2.1.5, cts-fencing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_stacks import bmc_of, eventually, pdu_of, sbd_device, tools_at
from gate import Gate

from ringfence.core.cluster import DeviceConfig
from ringfence.lab.devices.bench import Bench

FENCER = "/usr/lib/pacemaker/pacemaker-fenced"
SHORT_S = "6"
"""Pacemaker's own limit; an agent has begun by then, also on a busy machine."""
NOT_TOLD = ("plug", "systems_uri")
"""Pacemaker tells the plug itself; of the system the agent is to know nothing."""


def main(directory: Path) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    found: dict[str, object] = {}
    kinds = ("ipmi", "apc-snmp", "redfish")
    with Bench(directory, kinds, ("n1", "n2"), ("redfish",)) as bench, _fencer(directory):

        def fence(lie: str, device: DeviceConfig, action: str = "--fence", **more: str) -> None:
            secrets = bench.secrets(device.name) if device.name in bench.devices else {}
            _register(device, {**secrets, "pcmk_host_list": "n1", **more})
            before = bench.host("n1")["boots"]
            code = _admin(action, "n1", may_fail=True)
            off = not bench.runs("n1") or bench.host("n1")["boots"] != before
            found[lie] = {"code": code, "off": off}
            _admin("--deregister", "device")
            for name in ("n1", "n2"):
                bench.switch(name, "on")
                bench.lie(name, "bmc", "none")

        fence("0", bmc_of(bench))
        bench.plug("n1", "psu2", "pdu-a", "n2")
        fence("1", pdu_of(bench), pcmk_host_map="n1:1,2")
        fence("2", pdu_of(bench, snmp_version="2c"), pcmk_host_map="n1:42")
        bench.lie("n1", "bmc", "ack-ignore")
        fence("3", bmc_of(bench), "--reboot", method="cycle")
        bench.lie("n1", "bmc", "say-off")
        fence("4", bmc_of(bench))
        with sbd_device(directory) as sbd:
            _register(sbd, {"pcmk_host_list": "n1"})
            assert _admin("--fence", "n1", "--timeout", SHORT_S, may_fail=True) != 0, "msgwait is 20 s"
            _admin("--deregister", "device")
            fence("5", sbd)
        fence("6", bench.config("manager"))
        fence("7", bmc_of(bench), option="reboot")
        with Gate(bench.devices["bmc-n1"].port, sessions=1) as gate:
            slow = bmc_of(bench, ipport=gate.port, power_timeout=20)
            _register(slow, {**bench.secrets("bmc-n1"), "pcmk_host_list": "n1"})
            code = _admin("--fence", "n1", "--timeout", SHORT_S, may_fail=True)
            assert gate.held.is_set()
            eventually(lambda: not tools_at(gate.port))
            found["9"] = {"code": code, "off": not bench.runs("n1")}
    print(json.dumps(found))


@contextmanager
def _fencer(directory: Path) -> Iterator[None]:
    with (directory / "fencer.out").open("w") as out:
        running = subprocess.Popen([FENCER, "--stand-alone"], stdout=out, stderr=out, cwd=directory)
        try:
            eventually(lambda: _admin("--list-registered", may_fail=True) == 0)
            yield
        finally:
            running.terminate()
            running.wait()


def _register(device: DeviceConfig, more: dict[str, str]) -> None:
    words = {key: value for key, value in device.parameters.items() if key not in NOT_TOLD}
    pairs = [word for key, value in {**words, **more}.items() for word in ("--option", f"{key}={value}")]
    _admin("--register", "device", "--agent", device.agent, *pairs)


def _admin(*words: str, may_fail: bool = False) -> int:
    done = subprocess.run(["stonith_admin", *words], capture_output=True, text=True, check=False, timeout=60)
    assert may_fail or done.returncode == 0, (words, done.stderr)
    return done.returncode


if __name__ == "__main__":
    main(Path(sys.argv[1]))
