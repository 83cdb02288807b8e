"""What a machine is made of, from trees as real machines have them."""

from pathlib import Path

import pytest

from ringfence.host.hardware import board, hardware
from ringfence.wire.ring import Hardware

UUID = "4C4C4544-0042-3510-8056-B7C04F4D4D32"


def machine(
    place: Path, *, bit: bool = False, capabilities: str = "", hypervisor: str = "", **dmi: str
) -> Path:
    files = {f"sys/class/dmi/id/{name}": text for name, text in dmi.items()}
    flags = "fpu vme hypervisor lm" if bit else "fpu vme lm"
    files["proc/cpuinfo"] = f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t:\n"
    if capabilities:
        files["proc/xen/capabilities"] = capabilities
    if hypervisor:
        files["sys/hypervisor/type"] = hypervisor
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return place


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ({"product_name": "PowerEdge R740", "sys_vendor": "Dell Inc."}, ""),
        ({"product_name": "KVM", "sys_vendor": "Red Hat", "bit": True}, "kvm"),
        ({"product_name": "Standard PC (Q35)", "sys_vendor": "QEMU", "bit": True}, "qemu"),
        ({"product_name": "VMware7,1", "sys_vendor": "VMware, Inc.", "bit": True}, "vmware"),
        ({"product_name": "Virtual Machine", "sys_vendor": "Microsoft Corporation"}, "microsoft"),
        ({"product_name": "Surface", "sys_vendor": "Microsoft Corporation"}, ""),
        ({"product_name": "m5.xlarge", "sys_vendor": "Amazon EC2", "bit": True}, "amazon"),
        ({"product_name": "m5.metal", "sys_vendor": "Amazon EC2"}, ""),
        ({"product_name": "SUN FIRE X4170", "sys_vendor": "Oracle Corporation"}, ""),
        ({"product_name": "VirtualBox", "sys_vendor": "innotek GmbH", "bit": True}, "oracle"),
        ({"product_name": "R740", "sys_vendor": "Dell", "bit": True, "capabilities": "control_d"}, ""),
        ({"product_name": "", "bit": True, "hypervisor": "xen"}, "xen"),
        ({"bit": True}, "unknown"),
        ({}, ""),
    ],
)
def test_a_virtual_machine_is_told(tmp_path: Path, made: dict[str, str], found: str) -> None:
    assert hardware(machine=machine(tmp_path, **made)).hypervisor == found  # type: ignore[arg-type]


def test_a_board_is_told_by_a_digest_alone(tmp_path: Path) -> None:
    found = hardware(machine=machine(tmp_path, product_uuid=UUID)).board
    assert len(found) == 16
    assert found == board(UUID.lower()) != board(UUID.replace("4C4C", "4C4D"))
    assert found not in UUID.lower()


@pytest.mark.parametrize("uuid", ["", "Not Settable", "0" * 8, "00000000-0000-0000-0000-000000000000",
                                  "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"])  # fmt: skip
def test_a_board_that_nobody_has_named_is_none(uuid: str) -> None:
    assert board(uuid) == ""


def test_what_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    assert hardware(machine=tmp_path) == Hardware()


def test_a_lab_host_is_what_its_own_files_say(tmp_path: Path) -> None:
    assert hardware(tmp_path) == Hardware()
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "board").write_text("board-of-n1\n")
    (etc / "hypervisor").write_text("kvm\n")
    found = hardware(tmp_path)
    assert (len(found.board), found.hypervisor) == (16, "kvm")
    (etc / "hypervisor").write_text("none\n")
    assert hardware(tmp_path).hypervisor == ""
