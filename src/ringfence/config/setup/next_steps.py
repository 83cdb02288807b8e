"""NEXT.txt: the commands from these files to a cluster that runs, numbered, to be typed as they stand."""

import shlex
import textwrap
from collections.abc import Iterator

from ringfence.config.corosync_conf import PORT
from ringfence.config.setup.plan import Plan
from ringfence.core.cluster import ClusterConfig, NodeConfig

WIDTH = 100
UNITS = "corosync ringfence-block ringfence"


def next_steps(plan: Plan, where: str) -> str:
    config = plan.config
    lines = [
        f"Cluster {config.name}: from these files to a cluster that runs. As root; docs/SETUP.md says more."
    ]
    steps = [*_prepare(plan, where), *_copy_all(plan, where), *_start(plan.config), *_fencing(plan.config)]
    for number, step in enumerate(steps, 1):
        head, *commands = step
        lines += ["", *_wrapped(f"{number}. {head}", "   ")]
        lines += [f"       {command}" for command in commands]
    if plan.warnings:
        lines += ["", "What to know before you trust it"]
    for warning in plan.warnings:
        lines += _wrapped(f"- {warning}.", "  ")
    return "\n".join(lines) + "\n"


def _prepare(plan: Plan, where: str) -> Iterator[list[str]]:
    hosts = ", ".join(node.name for node in plan.config.nodes)
    missing = [secret for secret in plan.secrets if secret.missing]
    if missing:
        yield [
            "Fill in the secrets: in each file remove the # and write what belongs behind the =.",
            *(f"{_editor(f'{where}/secrets/{secret.device}')}    # {secret.about}" for secret in missing),
        ]
    yield [
        f"On every host ({hosts}): install corosync and ringfence, and fence-agents if you fence by device. "
        f"`hostname -s` must print the host's name as it stands here; else say the name with "
        f"`systemctl edit ringfence`.",
        "apt install corosync fence-agents    # dnf install corosync fence-agents-all",
    ]
    if not plan.disks:
        yield [
            f"Say in each {where}/*/ringfence.toml which shared disks may carry volumes:",
            "[devices]",
            'paths = ["/dev/disk/by-id/wwn-0x..."]',
        ]
    if plan.imported:
        yield [
            "On every host: stop the old cluster software and keep it from starting (cman, rgmanager, clvmd, "
            "dlm, lvmlockd, whatever there is): it and ringfence at once on one VG destroy volumes. "
            "Shared VGs and stock LVM2: docs/lvm2.md.",
        ]


def _copy_all(plan: Plan, where: str) -> Iterator[list[str]]:
    place = shlex.quote(where)
    yield [
        "From here, copy the files. They hold the keys of the cluster: let nobody else read this directory.",
        *(command for node in plan.config.nodes for command in _copy(node, place, bool(plan.secrets))),
    ]


def _start(config: ClusterConfig) -> Iterator[list[str]]:
    links = len(config.nodes[0].addresses)
    ports = f"{PORT}" if links == 1 else f"{PORT}-{PORT + links - 1}"
    yield [
        f"On every host: let corosync through the firewall (udp {ports}, between these hosts only).",
        f"firewall-cmd --permanent --add-port={ports}/udp && firewall-cmd --reload    # or your own way",
    ]
    yield [
        f"On every host: start. {_begin(config)} (Restart, for your distribution may have started corosync "
        f"already, without these files.)",
        f"systemctl enable {UNITS}",
        "systemctl restart corosync && systemctl start ringfence",
    ]
    yield [
        "On any host: see that all is well. `status` ends with 0 when nothing is blocked.",
        "ringfence doctor",
        "ringfence status",
    ]


def _fencing(config: ClusterConfig) -> Iterator[list[str]]:
    if len(config.nodes) == 1:
        return
    after = ""
    if config.devices and config.fence_action == "off":
        after = ' It stays off then; fence_action = "reboot" in ringfence.toml switches it on again.'
    yield [
        f"Fencing: believe it when you have seen it. With nothing precious running, crash one host, and "
        f"watch on another until it is given up for fenced; `why` says what is still missing.{after}",
        f"echo c > /proc/sysrq-trigger    # on {config.nodes[-1].name}",
        "ringfence events -f    # on another",
        f"ringfence why {config.nodes[-1].name}",
    ]


def _begin(config: ClusterConfig) -> str:
    if config.two_node:
        return "In any order: the first waits for the second."
    if len(config.nodes) == 1:
        return "One host needs nobody else."
    return (
        f"All within {config.timing.post_join_delay_ms // 1000} s of each other: once a majority is there "
        f"for so long, whoever is still absent is fenced."
    )


def _copy(node: NodeConfig, place: str, secrets: bool) -> Iterator[str]:
    at = node.addresses[0]
    host, name = f"root@{at}", shlex.quote(node.name)
    to = f"root@[{at}]" if ":" in at else host
    yield f"ssh {host} install -d /etc/corosync /etc/ringfence"
    yield f"scp -p {place}/{name}/corosync.conf {place}/{name}/authkey {to}:/etc/corosync/"
    yield f"scp -p {place}/{name}/ringfence.toml {to}:/etc/ringfence/"
    if secrets:
        yield f"scp -pr {place}/secrets {to}:/etc/ringfence/"


def _editor(path: str) -> str:
    return f"editor {shlex.quote(path)}"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
