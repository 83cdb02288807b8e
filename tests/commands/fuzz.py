"""A fuzzer over all that reads bytes of others: texts, labels, headers, images, requests, models of VGs.

    .venv/bin/python tests/commands/fuzz.py --minutes 10 [--seed N]

Each case is made from one number, which is printed when it fails; `--case N` tells it again.  What is read
may be refused in a `RingfenceError`, and in nothing else.  What is not refused must hold what its reader
promises: what was parsed prints to what parses to the same, slots lie in their ring, a VG that passes its
checks shares no extent, reports have a row for every LV."""

import argparse
import contextlib
import random
import struct
import sys
import time
from collections.abc import Callable

import msgspec
from segment_samples import SAMPLES, Deal

from ringfence.core.errors import RingfenceError
from ringfence.lvm2 import area, images, label, lockd_text, skim
from ringfence.lvm2.checksum import crc32
from ringfence.lvm2.text import Section, parse_text, print_text
from ringfence.volumes import allocate, report
from ringfence.volumes.checks import check_vg
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.model import Vg, read_text_like, read_vg
from ringfence.volumes.plan import Maker, NewPv, create_vg
from ringfence.volumes.relations import Relations

_TOKENS = (
    *(bytes([one]) for one in b"{}[]=,\"'#\n\0\\\xff\xc3 0123"),
    b"-1", b"18446744073709551616", b"0x10", b"1.5",
    b"pv0", b"pv1", b'"pv0"', b"vg0 {", b"\n}\n}\n", b"segment_count = 0",
    b'type = "raid5"', b'type = "thin"', b'type = "mirror"', b'type = "striped+RESHAPE"',
    b"logical_volumes {\n", b"physical_volumes {\n", b"extent_count = 0\n", b"stripe_count = 0\n",
)  # fmt: skip

PLACE = label.Area(4096, 1044480)
REQUEST = b'request="lock_lv"\ncmd ="lvs"\npid =123\nlv_name="a\\"b"\nopts=none\n'


def corpus() -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Texts, labels (whole starts of a disk), headers."""
    texts = []
    vg = new_vg()
    for make in SAMPLES.values():
        deal = Deal()
        make(deal)
        texts.append(print_text(with_lvs(vg, deal)))
    areas = (PLACE, label.Area(60 << 20, 1 << 20))
    one = label.PvLabel(
        "9m6Z9uafhKttpoZ1osF2SLoU5uowyiZa",
        64 << 20,
        (label.Area(1 << 20, 0),),
        areas,
        (label.Area(1 << 19, 512),),
    )
    start = bytes(512) + label.print_label(one) + bytes(1024)
    full = area.MdaHeader(
        4096, PLACE.size_bytes, area.RawLocn(4096, 1950, 1), area.RawLocn(PLACE.size_bytes - 512, 1024, 2)
    )
    return (
        texts,
        [start],
        [area.print_header(full), area.print_header(area.MdaHeader(4096, PLACE.size_bytes))],
    )


def new_vg() -> Vg:
    uuids = [f"{number}23456-7890-1234-5678-9012-3456-78901{number}" for number in range(3)]
    pvs = tuple(NewPv(uuid, f"/dev/d{at}", 200 << 20, 1 << 20) for at, uuid in enumerate(uuids[:2]))
    return create_vg("vg0", uuids[2], "ring", pvs, 2048, Maker("test", "host1", 1_700_000_000))


def with_lvs(vg: Vg, deal: Deal) -> Section:
    body = vg.body.put("logical_volumes", Section(tuple(deal.lvs.items())))
    if deal.historical:
        body = body.put("historical_logical_volumes", Section(tuple(deal.historical.items())))
    return vg.tree.put("vg0", body)


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """A few things wrong with it, as disks and people make them."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        many = rng.choice((1, 1, 4, 16, 64, 512))
        match rng.randrange(9):
            case 0:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 1:
                flipped = (data[at] ^ (1 << rng.randrange(8))) if at < len(data) else 0
                data = data[:at] + bytes([flipped]) + data[at + 1 :]
            case 2:
                data = data[:at] + data[at + many :]
            case 3:
                data = data[:at] + data[at : at + many] * 2 + data[at + many :]
            case 4:
                data = data[:at] + rng.choice(_TOKENS) + data[at:]
            case 5:
                token = rng.choice(_TOKENS)
                data = data[:at] + token + data[at + len(token) :]
            case 6:
                data = data[:at]
            case 7:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                data = data[:at] + other[start : start + many] + data[at + many :]
            case _:
                data = _numbered(rng, data)
    return data


def _numbered(rng: random.Random, data: bytes) -> bytes:
    """Another number or word in a line of its own, the text as sound as before."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    key, equals, value = lines[at].partition(b" = ")
    if not equals:
        return data
    other = rng.choice(lines).partition(b" = ")[2]
    lines[at] = (
        key + equals + rng.choice((b"0", b"1", b"7", b"4294967295", b'"lin"', b"[]", value, other or b"9"))
    )
    return b"\n".join(lines)


# -- what may be read ------------------------------------------------------------


def of_text(data: bytes) -> None:
    where = "fuzz"
    tree = parse_text(data, where)
    assert parse_text(print_text(tree), where) == tree
    vg = read_text_like(data.rstrip(b"\0"), where, None)
    assert vg.repeated or vg.tree == _values_first(tree, vg.name), "the text in pieces says something else"
    check_vg(vg)
    assert _values_first(parse_text(vg.text, where), vg.name) == vg.tree
    of_vg(vg)


def _values_first(tree: Section, vg: str) -> Section:
    """What stands beside the LVs comes before them; LVM2 writes nothing there."""
    body = tree.section(vg)
    lvs = body.section("logical_volumes") if body else None
    if body is None or lvs is None:
        return tree
    items = tuple(sorted(lvs.items, key=lambda item: isinstance(item[1], Section)))
    return tree.put(vg, body.put("logical_volumes", Section(items)))


def of_vg(vg: Vg) -> None:
    relations = Relations(vg)
    found = VgOnDisk(vg, 0, {}, ())
    view = report.LvsView(found, {}, relations)
    columns = report.lv_columns(view, vg.lvs, report.ROW_FIELDS)
    assert all(len(attr) == 10 for attr in columns["lv_attr"])
    msgspec.json.encode(columns)
    msgspec.json.encode(report.vg_rows((found,)))
    assert 0 <= allocate.free_count(vg) <= vg.extent_count
    taken: dict[tuple[str, int], str] = {}
    for lv in vg.lvs:
        for segment in lv.segments:
            for stripe in segment.stripes if segment.exact else ():
                for end in (stripe.start_extent, stripe.start_extent + stripe.extent_count - 1):
                    assert taken.setdefault((stripe.pv, end), lv.name) == lv.name or stripe.extent_count == 0
    read_vg(vg.tree, "fuzz")


def of_skims(data: bytes) -> None:
    images.heading(data[:512])
    uuids = [uuid for some in skim.visible_uuids(data) for uuid in some]
    with contextlib.suppress(RingfenceError):
        dict(images.lv_images(data, uuids[:5]))


def of_label(data: bytes) -> None:
    found = label.parse_label(data, "fuzz")
    if found is None:
        return
    assert 0 <= found.sector < label.LABEL_SECTORS
    marked = label.mark_used(data, found, True)
    assert len(marked) == 512


def of_header(data: bytes) -> None:
    header = area.parse_header(data[:512], PLACE, "fuzz")
    for slot in (header.committed, header.precommitted):
        if not slot.empty:
            for piece in area.text_ranges(header, slot):
                assert piece.offset_bytes >= PLACE.offset_bytes + area.HEADER_BYTES
                assert piece.offset_bytes + piece.size_bytes <= PLACE.offset_bytes + PLACE.size_bytes
    text = b"x" * 700 + b"\0"
    for avoid in (None, 3):
        with contextlib.suppress(RingfenceError):
            slot = area.place_text(header, text, "fuzz", avoid=avoid)
            area.text_writes(header, slot, text)


def of_request(data: bytes) -> None:
    fields = lockd_text.parse_fields(data)
    again = lockd_text.print_fields(fields.items())
    if not any("\n" in value for value in fields.values()):
        assert lockd_text.parse_fields(again.removesuffix(lockd_text.END)) == fields


def sealed(data: bytes, rng: random.Random) -> bytes:
    """With checksums that are right: what a damaged writer, not a damaged disk, leaves."""
    if rng.random() < 0.3:
        return data
    if len(data) >= 2048:
        sector = data[512:1024]
        return data[:512] + sector[:16] + struct.pack("<I", crc32(sector[20:])) + sector[20:] + data[1024:]
    return struct.pack("<I", crc32(data[4:512])) + data[4:512] if len(data) >= 512 else data


def case(
    number: int, texts: list[bytes], labels: list[bytes], headers: list[bytes]
) -> tuple[Callable[[bytes], None], bytes]:
    """The reader and the bytes of one case."""
    rng = random.Random(number)
    match rng.randrange(10):
        case 0:
            return of_label, sealed(mutate(rng, rng.choice(labels), labels), rng)
        case 1:
            return of_header, sealed(mutate(rng, rng.choice(headers), headers), rng)
        case 2:
            return of_request, mutate(rng, REQUEST, [REQUEST, *texts[:1]])
        case 3:
            return of_skims, mutate(rng, rng.choice(texts), texts)
    return of_text, mutate(rng, rng.choice(texts), texts)


def _read(read: Callable[[bytes], None], data: bytes) -> None:
    message = "none"
    try:
        read(data)
    except RingfenceError as error:
        message = error.message
    assert message, "an error without words"
    assert "\n" not in message, "an error of more than one line"


def run(first: int, seconds: float, say: Callable[[str], None] = print) -> int:
    """Cases from `first` on, for so long; how many.  Raises what a case raised that it may not."""
    made = corpus()
    for texts in made[0]:
        of_text(texts)
    end = time.process_time() + seconds
    number = first
    while time.process_time() < end:
        read, data = case(number, *made)
        try:
            _read(read, data)
        except BaseException:
            say(f"case {number}: {read.__name__}: .venv/bin/python tests/commands/fuzz.py --case {number}")
            raise
        number += 1
    return number - first


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1000)
    parser.add_argument("--case", type=int)
    options = parser.parse_args()
    if options.case is not None:
        read, data = case(options.case, *corpus())
        sys.stdout.buffer.write(data + b"\n")
        read(data)
        return 0
    print(f"from case {options.seed} on")
    print(f"{run(options.seed, options.minutes * 60)} cases, none failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
