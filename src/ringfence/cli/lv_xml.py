"""lv-xml: how qemu and libvirt are told to use an LV that is active on this host.

The same text on every host, for an LV has the same path everywhere: so a machine's definition stays as it is
when the machine moves.  Source: libvirt's formatdomain.html ("Hard drives"); qemu's qapi/block-core.json
(BlockdevOptions, BlockdevOptionsNbd)."""

import json
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import click

from ringfence.cli.answers import print_json
from ringfence.cli.options import daemon_options, json_option, open_daemon
from ringfence.cli.verbs.words import bare
from ringfence.core.errors import BadInput, Refused
from ringfence.wire import client as calls

FIELDS = ("lv_name", "lv_path", "lv_uri", "lv_attr", "lv_active", "lv_holders")
NODE_NAME_CHARACTERS = 31
"""qemu's limit."""


class Disk(NamedTuple):
    """An LV as a machine sees it."""

    lv: str
    path: str
    """Of the Unix socket, or of the device."""
    nbd: bool
    readonly: bool
    shared: bool
    """Other hosts may have it open, too."""


def disk_of(vg: str, row: dict[str, Any]) -> Disk:
    """Args: row: of `lvs`, with FIELDS.

    Raises Refused: it is not active here."""
    if not row["lv_path"]:
        raise Refused(
            f"Logical volume {vg}/{row['lv_name']} has no path on this host",
            next=f"lvchange -aey {vg}/{row['lv_name']}",
        )
    # PW: it is prepared for a hand-over, and is one host's as before.
    exclusive = any(one["mode"] in ("EX", "PW") for one in row["lv_holders"] or ())
    readonly = str(row["lv_attr"])[1:2] in ("r", "R")
    return Disk(row["lv_name"], row["lv_path"], row["lv_uri"].startswith("nbd"), readonly, not exclusive)


def blockdev(disk: Disk) -> dict[str, Any]:
    """The value of qemu's -blockdev."""
    options: dict[str, Any] = {"node-name": _node_name(disk.lv)}
    if disk.nbd:
        server = {"type": "unix", "path": disk.path}
        options |= {"driver": "nbd", "server": server, "export": disk.lv, "discard": "unmap"}
    else:
        options |= {"driver": "host_device", "filename": disk.path, "aio": "native"}
    options["cache"] = {"direct": True}
    if disk.readonly:
        options["read-only"] = True
    return options


def _node_name(lv: str) -> str:
    return f"lv-{lv.replace('+', '_')}"[:NODE_NAME_CHARACTERS]


def disk_xml(disk: Disk, target: str, bus: str) -> str:
    """libvirt's <disk>."""
    root = ElementTree.Element("disk", type="network" if disk.nbd else "block", device="disk")
    ElementTree.SubElement(root, "driver", name="qemu", type="raw", cache="none", discard="unmap")
    if disk.nbd:
        source = ElementTree.SubElement(root, "source", protocol="nbd", name=disk.lv)
        ElementTree.SubElement(source, "host", transport="unix", socket=disk.path)
    else:
        ElementTree.SubElement(root, "source", dev=disk.path)
    ElementTree.SubElement(root, "target", dev=target, bus=bus)
    if disk.readonly:
        ElementTree.SubElement(root, "readonly")
    if disk.shared:
        ElementTree.SubElement(root, "shareable")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")


@click.command("lv-xml")
@click.argument("volume", metavar="VG/LV")
@click.option("--target", default="vda", show_default=True, help="The disk's name in the machine.")
@click.option("--bus", default="virtio", show_default=True, help="How it is attached there.")
@click.option("--qemu", is_flag=True, help="Print the value of qemu's -blockdev instead.")
@daemon_options
@json_option
def lv_xml(
    volume: str, target: str, bus: str, qemu: bool, socket: str | None, root: Path | None, as_json: bool
) -> None:
    """libvirt's <disk> for an LV that is active here, or qemu's -blockdev with --qemu.

    \b
    ringfence lv-xml vg0/vm1 > disk.xml && virsh attach-device vm1 disk.xml --config
    qemu-system-x86_64 -blockdev "$(ringfence lv-xml --qemu vg0/vm1)" ...
    """
    vg, _, lv = bare(volume).partition("/")
    if not vg or not lv or "/" in lv:
        raise BadInput(f"{volume!r} is not VG/LV", next="give one as vg0/vm1", code="bad-command")
    with open_daemon(socket, root) as daemon:
        columns: dict[str, Any] = daemon.call(calls.Lvs(vg, lv, fields=FIELDS))["columns"]
    disk = disk_of(vg, {field: columns[field][0] for field in FIELDS})
    if as_json:
        print_json({"blockdev": blockdev(disk), "xml": disk_xml(disk, target, bus)})
    elif qemu:
        click.echo(json.dumps(blockdev(disk)))
    else:
        click.echo(disk_xml(disk, target, bus))
