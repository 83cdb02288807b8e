"""A fence agent whose plugs are files (`PacemakerWorld` says where)."""

import pathlib
import sys
import time

STATE = pathlib.Path("@STATE@")
METADATA = """<?xml version="1.0"?>
<resource-agent name="fence_switch" shortdesc="A switch that is a file"><longdesc/><vendor-url/>
<parameters><parameter name="plug" unique="0" required="1" obsoletes="port"><content type="string"/>
<shortdesc lang="en">Plug</shortdesc></parameter>
<parameter name="port" unique="0" required="1" deprecated="1"><content type="string"/>
<shortdesc lang="en">Plug</shortdesc></parameter></parameters>
<actions><action name="on"/><action name="off"/><action name="reboot"/><action name="status"/>
<action name="monitor"/><action name="list"/><action name="metadata"/><action name="validate-all"/></actions>
</resource-agent>"""


def main() -> int:
    keys = dict(line.rstrip("\n").partition("=")[::2] for line in sys.stdin if "=" in line)
    action, plug = keys.get("action", ""), keys.get("plug", keys.get("port", ""))
    if action == "metadata":
        print(METADATA)
        return 0
    with (STATE / "log").open("a") as log:
        log.write(f"{pathlib.Path(sys.argv[0]).name} {action} {plug} {keys.get('nodename', '')}\n")
    if action in ("monitor", "list", "validate-all"):
        return 0
    lie = STATE / f"{plug}.lie"
    way = lie.read_text() if lie.exists() else ""
    if way == "unreachable":
        print("Failed: Unable to connect/login to fencing device", file=sys.stderr)
        return 1
    if action in ("on", "off", "reboot") and way != "ignored":
        if way == "slow":
            time.sleep(2)
        (STATE / plug).write_text("off" if action == "off" else "on")
    if action == "status":
        return 2 if (STATE / plug).exists() and (STATE / plug).read_text() == "off" else 0
    return 0


sys.exit(main())
