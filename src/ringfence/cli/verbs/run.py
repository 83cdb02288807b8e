"""A verb's command line carried out.

Several names are done one after the other; one that fails does not stop the rest, and the exit code is then
the greatest of any, as LVM2 does: 5, or 3 where a name cannot be.  Source: LVM2 tools/toollib.c
(process_each_vg, process_each_lv)."""

from __future__ import annotations

import os
import sys

from ringfence.cli.answers import one_line, print_json
from ringfence.cli.verbs import verb
from ringfence.cli.verbs.words import understand, wrong
from ringfence.client.brief import OLDER, Brief
from ringfence.core.errors import EXIT_FAILED, EXIT_OK, BadInput, RingfenceError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ringfence.cli.verbs.table import Given, Plan, Verb, Work
    from ringfence.client.brief import Call

RETRY_MS = 2000
"""A daemon that is being restarted may be back by then; a person waits no longer without a word."""


def run(name: str, words: Sequence[str]) -> int:
    """Returns the exit code.  Raises RingfenceError."""
    entry = verb(name)
    given = understand(entry, words)
    if given["help"]:
        from ringfence.cli.verbs.help import help_text

        print(help_text(entry))
        return EXIT_OK
    try:
        if entry.run is not None:
            return entry.run(given)
        return change(entry, given)
    except BadInput as error:
        # The daemon's errors have codes of their own; this one is about the words.
        if error.code != BadInput.code:
            raise
        raise wrong(entry, error.message, error.next) from None


def change(entry: Verb, given: Given, plan: Plan | None = None) -> int:
    """Args: plan: instead of the entry's own."""
    plan = plan or entry.plan
    assert plan is not None
    if given["test"]:
        raise BadInput(
            "test mode is not served (LVM2 has none for shared VGs either); nothing was done",
            next="without --test it would be done",
        )
    if given.has("select"):
        from ringfence.cli.verbs.chosen import chosen

        with open_daemon(given) as daemon:
            given = given.of(chosen(daemon, given, entry.names))
        if not given.names:
            return EXIT_OK
    work = plan(given)
    with open_daemon(given) as daemon:
        if entry.expand is not None:
            work = entry.expand(daemon, work)
        return _each(daemon, work, entry, given)


def open_daemon(given: Given) -> Brief:
    """--socket, else the root that was given, else RINGFENCE_SOCKET, else the usual place.

    Raises Unavailable if nobody listens."""
    socket = given["socket"]
    if socket is None and given["root"] is not None:
        socket = os.path.join(os.path.abspath(given["root"]), "run/ringfence/socket")
    return Brief(socket, RETRY_MS)


def _each(daemon: Brief, work: Work, entry: Verb, given: Given) -> int:
    results: list[dict[str, Any]] = []
    errors: list[RingfenceError] = []
    for target, call in work:
        try:
            result: dict[str, Any] = _asked(daemon, call, entry, given)
            if entry.after is not None:
                result = entry.after(given, result)
        except RingfenceError as error:
            errors.append(error)
            if not given["json"]:
                print(f"  {_error_line(target, error)}", file=sys.stderr)
            continue
        results.append(result)
        if not given["json"]:
            _print(result, bool(given["quiet"]), "" if call.get("dump") == "metadata" else "  ")
    if given["json"]:
        answer: dict[str, Any] = {"results": results}
        if errors:
            answer["error"] = errors[0].as_dict()
            answer["errors"] = [error.as_dict() for error in errors]
        print_json(answer)
    if any(result.get("problems") for result in results):
        return EXIT_FAILED
    return max((error.exit_code for error in errors), default=EXIT_OK)


def _asked(daemon: Brief, call: Call, entry: Verb, given: Given) -> Any:
    if entry.during is None or given["json"] or given["quiet"]:
        return ask(daemon, call, "counted")
    with open_daemon(given) as other, entry.during(given, other):
        return daemon.call(call)


def ask(daemon: Brief, call: Call, *newer: str) -> Any:
    """Its answer.  A daemon that was not restarted yet may not know that less can be asked for: it tells all.

    Args: newer: the keys that ask for less."""
    try:
        return daemon.call(call)
    except RingfenceError as error:
        plain = {key: value for key, value in call.items() if key not in newer}
        if error.code != OLDER or plain == call:
            raise
        return daemon.call(plain)


def _error_line(target: str, error: RingfenceError) -> str:
    line, target = one_line(str(error)), printable(target)
    return line if not target or target in line else f"{target}: {line}"


def _print(result: dict[str, Any], quiet: bool, indent: str) -> None:
    """Args: indent: of `lines`; a VG's text is printed as it stands."""
    notes = list(result.get("notes") or [])
    rounded = [note for note in notes if note.startswith("Rounding ")]  # as LVM2 prints it
    for note in [*(note for note in notes if note not in rounded), *(result.get("problems") or [])]:
        print(f"  {printable(note)}", file=sys.stderr)
    if quiet:
        return
    for note in rounded:
        print(f"  {printable(note)}")
    for line in str(result.get("message") or "").splitlines():
        print(f"  {line}")
    for line in result.get("lines") or []:
        print(f"{indent}{line}")
    for key in ("path", "uri"):
        if result.get(key):
            print(f"  {result[key]}")
