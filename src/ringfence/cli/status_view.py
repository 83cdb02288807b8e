"""The daemon's status as text: sections of rows, printed plain or with colours.

One description serves both, so a pipe shows what a terminal shows."""

from typing import Any, NamedTuple

import click

from ringfence.cli.answers import age, columns, one_line

Status = dict[str, Any]


class Section(NamedTuple):
    title: str
    head: list[str]
    rows: list[list[str]]
    style: str = ""


def headline(status: Status) -> tuple[str, str]:
    """One line on how this node is, and rich's style for it."""
    state = str(status.get("state", "?"))
    primary = "primary" if status.get("primary") else "not primary"
    where = f"{status['node']} in cluster {status['cluster']}"
    line = f"{where}: {state}, {primary}, epoch {status.get('epoch', '-')}"
    if status.get("protocol"):
        line += f", protocol {status['protocol']}"
    if status.get("disarmed"):
        line += " - FENCING IS DISARMED"
        if not status.get("blocked"):
            return line, "bold red"
    if status.get("blocked"):
        return f"{line} - BLOCKED, see `ringfence why`", "bold red"
    return line, "bold green" if status.get("ready") else "bold yellow"


def remarks(status: Status) -> list[str]:
    """What must not be overlooked."""
    found = []
    if status.get("naive"):
        found.append("PROTECTIONS ARE OFF (naive): fence agents are believed, authority is not checked")
    if status.get("why"):
        found.append(one_line(str(status["why"])))
    for key in ("remarks", "broken", "refused"):
        found += [one_line(str(line)) for line in status.get(key) or []]
    found += [one_line(f"ALARM: {line}") for line in (status.get("fence_tests") or {}).get("alarms") or []]
    lvmlockd = (status.get("lvmlockd") or {}).get("trouble")
    if lvmlockd:
        found.append(one_line(f"stock LVM2 is not served: {lvmlockd}"))
    drill = status.get("drill")
    if drill:
        found.append(
            one_line(f"{drill['actor']} runs a {drill['kind']} drill of {drill['node']} for {drill['who']}")
        )
    quarantined = [str(device) for device in status.get("quarantined") or []]
    if quarantined:
        found.append(
            f"quarantined, fired but not believed: {', '.join(quarantined)} "
            "(`ringfence fence trust DEVICE` ends it)"
        )
    return found


def sections(status: Status, now_ms: int) -> list[Section]:
    found = [
        Section(
            "members", ["node", "id", "life", "state"], [_member(one) for one in status.get("members") or []]
        )
    ]
    victims = [row for victim in status.get("victims") or [] for row in _victim(victim, now_ms)]
    if victims:
        found.append(Section("to be fenced", ["node", "since", "how it stands"], victims, "red"))
    spaces = [_space(one) for one in status.get("lockspaces") or []]
    if spaces:
        found.append(Section("lockspaces", ["name", "members", "state", ""], spaces))
    authority = status.get("authority")
    if authority:
        found.append(Section("authority", ["for", "state", "left"], _authority(authority)))
    volumes = [
        [
            f"{one['vg']}/{one['lv']}",
            str(one.get("connections", 0)),
            str(one.get("failed") or one.get("uri", "")),
        ]
        for one in status.get("exports") or []
    ]
    if volumes:
        found.append(Section("open volumes", ["LV", "clients", "where"], volumes))
    working = [_wiping(one) for one in status.get("wiping") or []]
    working += [
        [f"{vg}/*", f"{count} LVs, on whatever host gets to them", ""]
        for vg, count in (status.get("unclean") or {}).items()
        if not any(one["vg"] == vg for one in status.get("wiping") or [])
    ]
    if working:
        found.append(Section("being zeroed, wiped or moved", ["LV", "how far", ""], working))
    ways = [_way(one, now_ms) for one in status.get("handovers") or []]
    if ways:
        found.append(Section("being handed over", ["LV", "from", "to", "since", ""], ways))
    incidents = [_incident(one, now_ms) for one in (status.get("incidents") or [])[-5:]]
    if incidents:
        found.append(Section("incidents", ["when", "kind", "what"], incidents, "red"))
    return found


def _member(member: Status) -> list[str]:
    cells = [str(member.get(key, "-")) for key in ("name", "node", "life", "state")]
    if member.get("hypervisor"):
        cells[-1] += f", virtual ({member['hypervisor']})"
    return cells


def _victim(victim: Status, now_ms: int) -> list[list[str]]:
    lines = [one_line(str(line)) for line in victim.get("lines") or ["-"]]
    since = int(victim.get("since_wall_ms") or 0)
    first = [str(victim.get("name", "-")), age(since, now_ms) if since else "-", lines[0]]
    return [first, *(["", "", line] for line in lines[1:])]


def _space(space: Status) -> list[str]:
    members = ", ".join(str(member) for member in space.get("members") or [])
    state = "frozen" if space.get("frozen") else "runs"
    return [str(space["name"]), members, state, one_line(str(space.get("why") or ""))]


def _wiping(one: Status) -> list[str]:
    done, size = int(one.get("done_bytes") or 0), int(one.get("size_bytes") or 0)
    percent = 100 * done // size if size else 100
    how_far = f"{percent} % of {size >> 20} MiB are {one.get('what', 'done')}"
    return [f"{one.get('vg')}/{one.get('lv')}", how_far, "here"]


def _way(one: Status, now_ms: int) -> list[str]:
    """An LV that is on its way to another host."""
    how = {"lend": "prepared: written on where it is", "take": "decided: as soon as it is let go of there"}
    cells = [f"{one.get('vg')}/{one.get('lv')}", str(one.get("giver", "")), str(one.get("taker", ""))]
    since = f"{age(int(one.get('since_wall_ms') or now_ms), now_ms)} ago"
    return [*cells, since, how.get(str(one.get("step")), "under way")]


def _incident(incident: Status, now_ms: int) -> list[str]:
    at_ms = int(incident.get("at_wall_ms") or now_ms)
    return [
        f"{age(at_ms, now_ms)} ago",
        str(incident.get("kind", "")),
        one_line(str(incident.get("what", ""))),
    ]


def _authority(authority: Status) -> list[list[str]]:
    return [
        [what, str(authority.get(what, "-")), _left(authority.get(f"{what}_left_ms"))]
        for what in ("grant", "write")
    ]


def _left(left_ms: Any) -> str:
    return f"{left_ms} ms" if isinstance(left_ms, int) and left_ms > 0 else "-"


def status_lines(status: Status, now_ms: int) -> list[str]:
    lines = [headline(status)[0], *remarks(status)]
    for section in sections(status, now_ms):
        lines += ["", f"{section.title}:"]
        lines += [f"  {line}" for line in columns([section.head, *section.rows])]
    return lines


def print_rich(status: Status, now_ms: int) -> None:
    # Imported here: rich costs more than all the rest of a short command.
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    text, style = headline(status)
    console.print(text, style=style, markup=False)
    for line in remarks(status):
        console.print(line, style="yellow", markup=False)
    for section in sections(status, now_ms):
        table = Table(title=section.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for name in section.head:
            table.add_column(name, header_style="dim", overflow="fold")
        for row in section.rows:
            table.add_row(*(escape(cell) for cell in row), style=section.style or None)
        click.echo()
        console.print(table)
