"""The text of a plain LV, linear and in one piece, read with one regular expression.

It knows the one layout that LVM2 and ringfence print such an LV in, with the keys that nearly all have, and
nothing else: what does not fit is for the parser, which reads what does fit to the same LV (20 times slower).

Source: LVM2 lib/format_text/export.c (_print_lv, _print_segment, out_areas)."""

import re
from functools import lru_cache

from ringfence.volumes.parts import Lv
from ringfence.volumes.segments import Segment, Stripe

_NUMBER = rb"(0|[1-9][0-9]{0,17})\n"
_CHARACTERS = rb"[ !#-\[\]-~]*"
_STRING = b'"(' + _CHARACTERS + b')"\n'
_LIST = rb'\[((?:"' + _CHARACTERS + rb'"(?:, "' + _CHARACTERS + rb'")*)?)\]\n'
_NAME = rb"((?!\.\.? )[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,126})"
"""`lvm2.names.can_be_name`."""
_PLAIN = re.compile(
    rb"\n" + _NAME + rb" \{\nid = " + _STRING + rb"status = " + _LIST + rb"flags = " + _LIST
    + rb"(?:tags = " + _LIST + rb")?(?:creation_time = " + _NUMBER + rb"creation_host = " + _STRING + rb")?"
    + rb"(?:allocation_policy = " + _STRING + rb")?(?:lock_args = " + _STRING + rb")?"
    + rb"segment_count = 1\n\nsegment1 \{\nstart_extent = " + _NUMBER + rb"extent_count = " + _NUMBER
    + rb'\ntype = "striped"\nstripe_count = 1\n\nstripes = \[\n"([A-Za-z0-9_+.-]+)", '
    + _NUMBER + rb"\]\n\}\n\}\n"
)  # fmt: skip


def plain_lv(text: bytes, pvs: frozenset[str]) -> Lv | None:
    """The LV of a fragment (`lvm2.fragments`); None: it is not so plain."""
    found = _PLAIN.fullmatch(text)
    if found is None:
        return None
    name, uuid, status, flags, tags, time_s, host, policy, lock_args, start, count, pv, first = found.groups()
    if pv.decode() not in pvs:
        return None
    extents = int(count)
    stripes = (Stripe(pv.decode(), int(first), extents),)
    return Lv(
        name=name.decode(),
        uuid=uuid.decode(),
        status=_strings(status),
        flags=_strings(flags),
        tags=_strings(tags),
        lock_args=_string(lock_args),
        creation_time_s=int(time_s or 0),
        creation_host=_string(host),
        segments=(Segment(int(start), extents, "striped", stripes),),
        policy=_string(policy),
        text=text,
    )


@lru_cache(maxsize=256)
def _strings(items: bytes | None) -> tuple[str, ...]:
    return tuple(items.decode()[1:-1].split('", "')) if items else ()


@lru_cache(maxsize=256)
def _string(text: bytes | None) -> str:
    return text.decode() if text else ""
