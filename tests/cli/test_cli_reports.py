"""pvs, vgs, lvs: LVM2's tables and JSON from the daemon's rows, and who holds an LV."""

import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cli_daemon import CannedDaemon, canned_daemon
from cli_run import Run

from ringfence.cli.report.descriptions import DESCRIPTIONS
from ringfence.cli.report.fields import FIELDS
from ringfence.cli.verbs.derive import ASKABLE, DERIVED
from ringfence.client.brief import OLDER, Brief
from ringfence.core.errors import BadInput, NotFound
from ringfence.volumes.report import LV_FIELDS
from ringfence.wire import client as calls

M = 1 << 20
SINCE = 1_700_000_000_000  # 2023-11-14T22:13:20Z


def lv(
    name: str, vg: str = "vg0", size: int = 64 * M, holders: tuple[tuple[str, str], ...] = ()
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "lv_name": name, "vg_name": vg, "lv_attr": "-wi-a-----", "lv_size": size, "pool_lv": "", "origin": "",
        "data_percent": "", "metadata_percent": "", "move_pv": "", "mirror_log": "", "copy_percent": "",
        "convert_lv": "", "lv_uuid": "u-" + name, "lv_full_name": f"{vg}/{name}", "lv_path": "", "lv_uri": "",
        "lv_active": "", "lv_lockargs": "dlm", "lv_tags": "a,b", "lv_time": 1_700_000_000, "lv_host": "h",
        "lv_parents": "", "seg_count": 1, "segtype": "linear", "seg_pe_ranges": "/dev/sda:0-15",
        "devices": "/dev/sda(0)",
    }  # fmt: skip
    row["lv_holders"] = [
        {"node": node, "mode": mode, "token": "3.1.9", "since_wall_ms": SINCE} for node, mode in holders
    ]
    row["segments"] = [{"seg_pe_ranges": "/dev/sda:0-15", "devices": "/dev/sda(0)", "segtype": "linear"}]
    return row


ROWS = [lv("vm2", size=2047 * M), lv("vm1", holders=(("an-a01n01", "EX"),)), lv("big", "avg", 5 << 30)]
VG = {
    "vg_name": "vg0", "pv_count": 1, "lv_count": 2, "snap_count": 0, "vg_attr": "wz--ns", "vg_size": 252 * M,
    "vg_free": 0, "vg_fmt": "lvm2", "vg_uuid": "U", "vg_seqno": 7, "vg_shared": "shared", "vg_tags": "",
}  # fmt: skip
PVS = [
    {
        "pv_name": "/dev/loop0", "vg_name": "rfovg", "pv_fmt": "lvm2", "pv_attr": "a--",
        "pv_size": 5 * (1 << 30) - 4 * M,
        "pv_free": 5 * (1 << 30) - 4 * M, "pv_used": 0, "pv_tags": "", "pv_mda_count": 1,
    }
]  # fmt: skip


def answer(call: calls.Call) -> Any:
    match call:
        case calls.Lvs(vg, name, fields=fields, same=True):
            rows = [row for row in ROWS if vg in ("", row["vg_name"]) and name in ("", row["lv_name"])]
            if not rows:
                raise NotFound(f'Volume group "{vg}" not found', next="see vgs")
            columns = {field: [row[field] for row in rows] for field in fields}
            same = {field: values[0] for field, values in columns.items() if values == values[:1] * len(rows)}
            left = {field: values for field, values in columns.items() if field not in same}
            return {"columns": left, "same": same, "count": len(rows), "stale": False}
        case calls.Vgs():
            return {"rows": [VG], "stale": True, "notes": ["WARNING: read without a lock"]}
        case calls.Pvs():
            return {"rows": PVS, "stale": False}
    raise AssertionError(call)


@pytest.fixture(autouse=True)
def _answers(daemon: CannedDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    daemon.answer = answer
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_path_of_what_is_not_active_is_where_it_will_be(
    daemon: CannedDaemon, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As LVM2 has it: scripts ask for it before they activate."""
    monkeypatch.setitem(ROWS[1], "lv_path", "/somewhere/vm1")
    for fields in ("lv_path", "lv_path,lv_size"):
        ran = run("lvs", "-o", fields, "-O", "lv_name", "--noheadings", "vg0")
        paths = [line.split()[0] for line in ran.out.splitlines()]
        assert paths == ["/somewhere/vm1", f"{daemon.path.parent}/dev/vg0/vm2"]


def test_lvs_has_lvm2_s_columns_and_the_holder(run: Run) -> None:
    ran = run("lvs")
    assert (ran.code, ran.err) == (0, "")
    head, *rows = ran.out.splitlines()
    assert head.split() == (
        [
            "LV",
            "VG",
            "Attr",
            "LSize",
            "Pool",
            "Origin",
            "Data%",
            "Meta%",
            "Move",
            "Log",
            "Cpy%Sync",
            "Convert",
            "Holder",
        ]
    )
    assert [row.split() for row in rows] == [
        ["big", "avg", "-wi-a-----", "5.00g"],
        ["vm1", "vg0", "-wi-a-----", "64.00m", "an-a01n01:EX@2023-11-14T22:13:20Z"],
        ["vm2", "vg0", "-wi-a-----", "<2.00g"],
    ]
    assert {len(line) for line in ran.out.splitlines()} == {len(head)}, "padded, as LVM2's"


def test_pvs_line_is_stock_lvm2_s(run: Run) -> None:
    """Both lines were printed by stock LVM2 2.03.16 for such a PV."""
    assert run("pvs").out == (
        "  PV         VG    Fmt  Attr PSize  PFree \n  /dev/loop0 rfovg lvm2 a--  <5.00g <5.00g\n"
    )


def test_numbers_are_right_under_left_headings(run: Run) -> None:
    """As stock LVM2 printed `pvs -o pv_used,pv_tags,pv_mda_count,...` for an empty PV."""
    assert (
        run("pvs", "-o", "pv_used,pv_tags,pv_mda_count").out
        == "  Used PV Tags #PMda\n    0              1\n"
    )


def test_json_is_lvm2_s_own_layout(run: Run) -> None:
    """Printed by stock LVM2 2.03.16."""
    assert run("pvs", "--reportformat", "json").out == (
        "  {\n"
        '      "report": [\n'
        "          {\n"
        '              "pv": [\n'
        '                  {"pv_name":"/dev/loop0", "vg_name":"rfovg", "pv_fmt":"lvm2", "pv_attr":"a--", '
        '"pv_size":"<5.00g", "pv_free":"<5.00g"}\n'
        "              ]\n"
        "          }\n"
        "      ]\n"
        "  }\n"
    )
    assert [one["lv_name"] for one in run("lvs", "--reportformat", "json").json["report"][0]["lv"]] == [
        "big", "vm1", "vm2",
    ]  # fmt: skip


def test_json_std_has_types_and_a_version(run: Run) -> None:
    ran = run("lvs", "--json", "-o", "lv_name,lv_size,seg_count,lv_tags,data_percent,lv_holder", "vg0/vm1")
    assert ran.json == {
        "version": 1,
        "report": [
            {
                "lv": [
                    {
                        "lv_name": "vm1", "lv_size": "64.00m", "seg_count": 1, "lv_tags": ["a", "b"],
                        "data_percent": None, "lv_holder": "an-a01n01:EX@2023-11-14T22:13:20Z",
                    }
                ]
            }
        ],
        "log": [],
    }  # fmt: skip
    ran = run("lvs", "--json", "--units", "b", "--nosuffix", "-o", "size", "vg0/vm1")
    assert ran.json["report"][0]["lv"] == [{"lv_size": 64 * M}]
    ran = run("vgs", "--json")
    assert ran.json["log"] == [{"log_type": "warn", "log_message": "WARNING: read without a lock"}]
    assert ran.err == ""


def test_names_choose(run: Run, daemon: CannedDaemon) -> None:
    assert run("lvs", "--noheadings", "-o", "name", "vg0/vm1", "avg", "vg0/vm1").out == "  big \n  vm1 \n"
    fields = ("lv_name", "vg_name", "lv_uuid")
    names = (("vg0", "vm1"), ("avg",), ("vg0", "vm1"))
    asked = [calls.Lvs(*one, fields=fields, same=True) for one in names]
    assert daemon.calls == asked


def test_a_name_that_is_not_there_fails_the_rest_not(run: Run) -> None:
    ran = run("lvs", "--noheadings", "-o", "name", "nosuch", "avg")
    assert (ran.code, ran.out) == (5, "  big \n")
    assert ran.err == '  Volume group "nosuch" not found; see vgs\n'
    ran = run("lvs", "--json", "nosuch")
    assert ran.code == 5
    assert ran.json["error"]["code"] == "not-found"
    ran = run("pvs", "/dev/nosuch")
    assert (ran.code, ran.out) == (5, "")
    assert 'Failed to find physical volume "/dev/nosuch"' in ran.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-o", "lv_name,vg_name"], "vm1 vg0"),
        (["-o", "name,size"], "vm1 64.00m"),
        (["-o", "name,lv_holder", "-o", "+lv_holder"], "vm1 an-a01n01:EX@2023-11-14T22:13:20Z"),
        (["-o", "lv_name", "-o", "+seg_pe_ranges,devices"], "vm1 /dev/sda:0-15 /dev/sda(0)"),
        (["-o", "lv_name,lv_attr", "-o-attr"], "vm1"),
        (["-o", "lv_name,lv_name"], "vm1 vm1"),
        (["-o", "lv_name,size", "--units", "b"], "vm1 67108864B"),
        (["-o", "lv_name,size", "--units", "k", "--nosuffix"], "vm1 65536.00"),
        (["-o", "lv_name,lv_time"], "vm1 2023-11-14 22:13:20 +0000"),
        (["-o", "lv_name,vg_name,lv_uuid", "--separator", ":"], "vm1:vg0:u-vm1"),
        (["-o", "lv_name,vg_name,data_percent", "--separator", "%s%"], "vm1%s%vg0%s%"),
    ],
)
def test_options(run: Run, options: list[str], expected: str) -> None:
    ran = run("lvs", "--noheadings", *options, "vg0/vm1")
    assert (ran.code, " ".join(ran.out.split())) == (0, expected)


def test_sorting(run: Run) -> None:
    def names(*options: str) -> list[str]:
        return run("lvs", "--noheadings", "-o", "name", *options).out.split()

    assert names("-O", "-lv_name") == ["vm2", "vm1", "big"]
    assert names("-O", "size") == ["vm1", "vm2", "big"]
    assert names("-O", "vg_name,-size") == ["big", "vm2", "vm1"]


def test_what_all_rows_have_in_common_is_aligned_and_sorted_too(run: Run) -> None:
    ran = run("lvs", "vg0", "-o", "lv_tags,lv_name,lv_size,vg_name", "--separator", "%", "--aligned")
    assert ran.out.splitlines() == [
        "  LV Tags%LV  %LSize %VG ",
        "  a,b    %vm1 %64.00m%vg0",
        "  a,b    %vm2 %<2.00g%vg0",
    ]
    assert run("lvs", "vg0", "-o", "tags", "-O", "-vg_name,tags", "--noheadings").out == "  a,b    \n" * 2


def test_notes_go_to_stderr(run: Run) -> None:
    ran = run("vgs")
    assert ran.out == ("  VG  #PV #LV #SN Attr   VSize   VFree\n  vg0   1   2   0 wz--ns 252.00m    0 \n")
    assert ran.err == "  WARNING: read without a lock\n"


def test_what_is_asked_of_the_daemon_is_what_it_has() -> None:
    assert set(ASKABLE) <= set(LV_FIELDS)
    assert {field for sources, _ in DERIVED.values() for field in sources if field.startswith("lv_")} <= set(
        ASKABLE
    )


def test_every_field_prints(run: Run) -> None:
    for verb in ("pvs", "vgs", "lvs"):
        for form in ("basic", "json", "json_std"):
            assert run(verb, "-o", "all", "--reportformat", form).code == 0


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["lvs", "-o", "nosuch"], 5, "Unrecognised field: nosuch"),
        (["lvs", "-o", "pv_name"], 5, "Can't report LV and PV fields at the same time"),
        (["lvs", "-O", "nosuch"], 5, "Unrecognised field: nosuch"),
        (["lvs", "--units", "x"], 3, "--units x: give one of"),
        (["lvs", "--reportformat", "xml"], 3, "'xml' is not one of"),
        (["lvs", "--nosuch"], 3, "No such option"),
    ],
)
def test_what_is_wrong_is_one_line(run: Run, words: list[str], code: int, expected: str) -> None:
    ran = run(*words)
    assert ran.code == code
    assert expected in ran.err
    assert ran.err.count("\n") == 1
    assert ran.out == ""


class Older(CannedDaemon):
    """Of a version that knew neither fields nor segments."""

    def _asked(self, client: int, request: calls.Request, who: str) -> None:
        call = request.call
        if getattr(call, "fields", ()) or getattr(call, "segments", False):
            self._socket.send(client, calls.Reply(request.id, error=UNKNOWN))
        else:
            super()._asked(client, request, who)


UNKNOWN = {
    "code": "bad-input", "message": "unknown request: Object contains unknown field `fields`", "node": "",
    "next": "is the client newer than the daemon?", "retry": False,
}  # fmt: skip


def test_a_daemon_of_an_older_version_tells_all_that_it_has(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    with canned_daemon(Older) as daemon:
        monkeypatch.setenv("RINGFENCE_SOCKET", str(daemon.path))
        daemon.answer = lambda call: {"rows": ROWS} if isinstance(call, calls.Lvs) else answer(call)
        ran = run("lvs", "-o", "lv_name,lv_size", "--noheadings", "--units", "g")
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.split() == ["big", "5.00g", "vm1", "0.06g", "vm2", "2.00g"]
        assert run("pvs", "--segments").code == 0
        refused = run("lvremove", "vg0")
    assert refused.code == 5
    assert refused.err == (
        "  the daemon that runs is of an older version, and does not know this: Object contains "
        "unknown field `fields`; restart it: systemctl restart ringfence (volumes stay open)\n"
    )


def test_what_the_client_socket_says_of_an_unknown_call_is_understood(daemon: CannedDaemon) -> None:
    with Brief(None, 0) as client, pytest.raises(BadInput) as caught:
        client.call({"type": "Lvs", "of_tomorrow": 1})
    assert caught.value.code == OLDER


@pytest.mark.parametrize("name", ["pvs", "vgs", "lvs"])
def test_help_describes_every_field_that_lvm2_has(daemon: CannedDaemon, run: Run, name: str) -> None:
    ran = run(name, "-o", "help")
    assert (ran.code, daemon.calls) == (0, [])
    ours = dict(re.findall(r"^    (\w+) +- (.+)$", ran.out, re.MULTILINE))
    assert all(text.endswith(".") for text in ours.values())
    assert set(DESCRIPTIONS) == set(FIELDS) == set(ours) - {one for one in ours if one.endswith("_all")} - {
        "selected", "help",
    }  # fmt: skip
    done = subprocess.run([name, "-o", "help"], capture_output=True, text=True, check=False)
    theirs = re.findall(r"^    (\w+) +- ", done.stdout + done.stderr, re.MULTILINE)
    assert len(theirs) > 50
    assert [field for field in theirs if field not in ours] == []
    assert "    lv_size                     - Its size. [size]\n" in run(name, "-S", "help").out
