"""handover: ringfence's own, in the form of LVM2's verbs."""

from ringfence.cli.verbs.lv_kinds import split_lv
from ringfence.cli.verbs.table import CHANGE, Given, Option, Verb, Work, call
from ringfence.core.errors import BadInput


def _handover(given: Given) -> Work:
    vg, lv = split_lv(given.names[0])
    to, prepare, abort = given["to"], bool(given["prepare"]) or None, bool(given["abort"]) or None
    if abort and (to or prepare):
        raise BadInput("--abort takes back what is under way, to whomever", next="give it alone")
    if not abort and not to:
        raise BadInput("--to is missing", next="name the node that is to have the LV")
    asked = call("LvHandover", vg=vg, lv=lv, to=to or None, prepare=prepare, abort=abort)
    return [(f"{vg}/{lv}", asked)]


VERBS = {
    "handover": Verb(
        "handover", "Have another host go on with an LV that is in use here.", "VG/LV",
        (
            Option("to", ("--to",), "The host that is to have it.", "NODE", default="", ours=True),
            Option(
                "prepare", ("--prepare",), "Only open it there, to read; it is written here as before.",
                ours=True,
            ),
            Option("abort", ("--abort",), "Take it back, if it is not given yet.", ours=True),
            *CHANGE,
        ),
        _handover,
        "Both hosts have it open for a moment, and never more than one writes: writes wait at both ends until"
        " the lock is the other host's. Whoever uses it here is cut off then, and goes on there.",
        (
            ("handover vg0/vm1 --to an-a01n02", "an-a01n02 has it, EX; what writes waits for a moment"),
            ("handover vg0/vm1 --to an-a01n02 --prepare", "before `virsh migrate`: its path is there"),
            ("handover vg0/vm1 --abort", "it stays here"),
        ),
        least=1,
        most=1,
        names="lv",
    ),
}  # fmt: skip
