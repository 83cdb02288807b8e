"""FenceAgentAPI on stdin for SBD: a host is told to end itself, by a message in its slot on a shared disk.

    python -m ringfence.agents.sbd

Keys: devices (one to three, by commas), nodename, or plug where the slot is called otherwise.

The stock fence_sbd calls a host off once a message lies in its slot: a second fencer, after the first was
killed, gets "Already OFF" at once, whether or not anybody has read it.  Here

- `off` writes a message afresh each time, and ends only when msgwait, as the disk's header has it, has passed
  since the write, counted on CLOCK_BOOTTIME of this host; and the message must still lie there: a daemon that
  starts anew clears its slot;
- `status` is off while such a message lies in the slots of a majority: nobody has started there since.

So it is shown that the host has had its time, not that it has used it.  That it did rests on its watchdog,
which its sbd must have armed; that is why this is evidence only where the cluster says so ("self-fence").

Source: sbd(8); sbd-md.c of SBD 1.5.2 for `message`, which waits msgwait itself after the write."""

import re
import shutil
import subprocess
import sys
import time

from ringfence.agents.process import AGENT_PATH, ENVIRONMENT
from ringfence.agents.request import read_request
from ringfence.core.errors import BadInput, Refused, RingfenceError, Unavailable
from ringfence.host.clock import boottime_ns

ASK_S = 10
"""For a header or the slots; sbd itself gives a read 3 s."""
MOST_DEVICES = 3
FATAL = ("off", "reset", "crashdump")
"""Messages after which a host ends."""
_TIMEOUT = re.compile(r"Timeout \((\w+)\)\s*: (\d+)")
METADATA = """<?xml version="1.0" ?>
<resource-agent name="fence_sbd" shortdesc="Tells a host by SBD to end itself, and gives it its time">
<longdesc>Writes a message into the host's slot and waits for msgwait.</longdesc>
<vendor-url></vendor-url>
<parameters>
<parameter name="devices" unique="0" required="1"><content type="string"/>
<shortdesc lang="en">SBD devices, one to three, separated by commas</shortdesc></parameter>
<parameter name="plug" unique="0" required="0"><content type="string"/>
<shortdesc lang="en">Name of the slot, if it is not the node's</shortdesc></parameter>
</parameters>
<actions><action name="on"/><action name="off"/><action name="status"/><action name="monitor"/>
<action name="metadata"/></actions>
</resource-agent>"""


def main() -> int:
    request = read_request(sys.stdin)
    action = request.action
    try:
        if action == "metadata":
            print(METADATA)
            return 0
        devices = [one.strip() for one in request.keys.get("devices", "").split(",") if one.strip()]
        if not 1 <= len(devices) <= MOST_DEVICES or not all(one.startswith("/") for one in devices):
            raise BadInput("devices: one to three paths are needed", next="give devices=/dev/...")
        disks = _Disks(devices)
        if action == "monitor":
            disks.msgwait_s()
            return 0
        name = request.node
        if action == "status":
            return disks.status(name)
        if action == "off":
            print(disks.off(name))
        elif action == "on":
            disks.message(name, "clear", 0)
        else:
            raise BadInput(f"{action!r} is not served", next="off, on, status, monitor, metadata")
    except RingfenceError as error:
        print(f"Failed: {error}", file=sys.stderr)
        return 1
    return 0


class _Disks:
    def __init__(self, devices: list[str]) -> None:
        self._devices = devices
        self._majority = len(devices) // 2 + 1
        found = shutil.which("sbd", path=AGENT_PATH)
        if found is None:
            raise Unavailable("sbd is not installed on this host", next="apt install sbd")
        self._sbd = found

    def msgwait_s(self) -> int:
        """The longest of all headers.  Raises RingfenceError: no majority can be read, or it is unsafe."""
        headers = [dict(_TIMEOUT.findall(text)) for text in self._each("dump")]
        headers = [one for one in headers if "msgwait" in one and "watchdog" in one]
        if len(headers) < self._majority:
            raise Unavailable(
                f"{len(headers)} of {len(self._devices)} devices have a header", next="sbd -d DEVICE dump"
            )
        for one in headers:
            # A watchdog that was fed in the last moment, and a message that was read in the last one.
            if int(one["msgwait"]) < 2 * int(one["watchdog"]):
                raise Refused(
                    f"msgwait {one['msgwait']} s is not twice the watchdog's {one['watchdog']} s: a host may "
                    f"not have ended by then",
                    next="stop sbd everywhere, then sbd create with -4 twice -1",
                )
        return max(int(one["msgwait"]) for one in headers)

    def off(self, name: str) -> str:
        msgwait_s = self.msgwait_s()
        if len(self._messages(name)) < self._majority:
            raise Refused(f"{name} has no slot: its sbd has never run here", next="start sbd on it")
        began_ns = boottime_ns()
        self.message(name, "off", msgwait_s)
        took_s = (boottime_ns() - began_ns) / 1e9
        if took_s < msgwait_s:  # it did not wait: the write was before this moment
            time.sleep(msgwait_s)
        if not self._lies(name):
            raise Refused(f"{name} has cleared its slot: its sbd started anew", next="ringfence why")
        return f"told to end itself, and msgwait ({msgwait_s} s) has passed since"

    def message(self, name: str, word: str, wait_s: int) -> None:
        """To a majority at least.  Raises Unavailable."""
        self._run(*self._arguments(self._devices), "message", name, word, limit_s=wait_s + 2 * ASK_S)

    def status(self, name: str) -> int:
        """The exit code: 0 on, 2 off, 1 unknown."""
        messages = self._messages(name)
        if len(messages) < self._majority:
            print(f"{name} has a slot on {len(messages)} of {len(self._devices)} devices", file=sys.stderr)
            return 1
        print(f"in its slots: {', '.join(messages)}", file=sys.stderr)
        if self._lies(name, messages):
            return 2
        return 0 if all(one == "clear" for one in messages) else 1

    def _lies(self, name: str, messages: list[str] | None = None) -> bool:
        """Whether a message that ends the host lies in a majority of its slots."""
        found = self._messages(name) if messages is None else messages
        return sum(one in FATAL for one in found) >= self._majority

    def _messages(self, name: str) -> list[str]:
        """What lies in its slot, of each device that has one for it."""
        lines = (line.split("\t") for text in self._each("list") for line in text.splitlines())
        return [fields[2] for fields in lines if len(fields) > 2 and fields[1] == name]

    def _each(self, command: str) -> list[str]:
        """The output for each device; of one that fails it is empty."""
        found = []
        for device in self._devices:
            try:
                found.append(self._run(*self._arguments([device]), command, limit_s=ASK_S))
            except Unavailable as error:
                print(error, file=sys.stderr)
                found.append("")
        return found

    @staticmethod
    def _arguments(devices: list[str]) -> list[str]:
        return [word for device in devices for word in ("-d", device)]

    def _run(self, *words: str, limit_s: float) -> str:
        try:
            done = subprocess.run(
                [self._sbd, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=limit_s, cwd="/", check=False,
                env=ENVIRONMENT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Unavailable(f"sbd {' '.join(words)} did not end", next="look at the disk") from None
        except OSError as error:
            raise Unavailable(f"sbd: {error.strerror}", next="apt install sbd") from None
        if done.returncode:
            raise Unavailable(f"sbd {' '.join(words)} failed", next=f"sbd {' '.join(words)}")
        return done.stdout


if __name__ == "__main__":
    sys.exit(main())
