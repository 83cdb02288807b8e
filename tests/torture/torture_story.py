"""Replays scenario files for the checker of lock histories: what clients saw, and the verdict.

A block is the events of one run, `----`, and what the checker says of it: a line for each violation, then
the counts that are not zero.  Lines with `#` are for people.  REWRITE=1 records the second half anew;
read the difference before you commit it.  Words that the harness does not know are errors.

Times are in ms.  Clients are named by their host and a letter.  Resource `counter` has its value block
checked.

    10 n1.a asks r EX [wait=MS]                a request; without a wait it is for ever
    12 n1.a gets r EX 1.1.5 [value=WORD]       granted, token 1.1.5; `zeroes` is a block never written
    13 n1.a converts r NL [writes=WORD]        the answer is `gets` or `refused`
    14-19 n1.a uses r EX [lapsed=17 | lost]    what the second look saw, if not valid authority
    20 n1.a releases r      21 n1.a released r      22 n1.a loses r      23 n1.a refused r"""

from pathlib import Path

from ringfence.lab.torture.check import ZEROES, Verdict, check
from ringfence.lab.torture.history import (
    After,
    Asked,
    Converting,
    Event,
    Granted,
    Log,
    Lost,
    Refused,
    Released,
    Releasing,
    Started,
    Used,
)

MS = 1_000_000
COUNTER = "counter"
COUNTS = ("grants", "uses", "late_uses", "clashes", "writes", "not_valid", "longest_wait_ms")


class BadLine(Exception):
    pass


class Story:
    """The events of one run, by client."""

    def __init__(self) -> None:
        self._logs: dict[str, list[Event]] = {}
        self._ops: dict[tuple[str, str], int] = {}

    def verdict(self) -> Verdict:
        logs = [Log(name, name.partition(".")[0], tuple(events)) for name, events in self._logs.items()]
        return check(logs, (COUNTER,))

    def add(self, line: str) -> None:
        """Raises BadLine."""
        try:
            when, client, verb, resource, *words = line.split()
            began, _, ended = when.partition("-")
            times = int(began) * MS, int(ended or began) * MS
            names = [word for word in words if "=" not in word]
            values = dict(word.split("=") for word in words if "=" in word)
            event = self._event(times, client, verb, resource, names, values)
            if names or values:
                raise ValueError(f"words left over: {names} {values}")
        except (ValueError, LookupError) as error:
            raise BadLine(f"{line}: {error}") from None
        self._logs.setdefault(client, [Started(client, client, 0)]).append(event)

    def _event(
        self, times: tuple[int, int], client: str, verb: str, resource: str, names: list[str],
        values: dict[str, str],
    ) -> Event:  # fmt: skip
        at_ns, ended_ns = times
        if verb == "asks":
            self._ops[client, resource] = op = len(self._ops) + 1
            wait = values.pop("wait", None)
            return Asked(op, "app", resource, names.pop(0), int(wait) if wait else None, at_ns)
        op = self._ops[client, resource]
        match verb:
            case "gets":
                mode, token = names.pop(0), names.pop(0)
                return Granted(op, mode, token, at_ns, _block(values.pop("value", None)))
            case "converts":
                return Converting(op, names.pop(0), None, at_ns, _block(values.pop("writes", None)))
            case "uses":
                after, until_ns = After.VALID, ended_ns + 100 * MS
                mode = names.pop(0)
                if names:
                    after, until_ns = After(names.pop(0)), 0
                elif values:
                    after, until_ns = After.LAPSED, int(values.pop("lapsed")) * MS
                return Used(op, mode, at_ns, ended_ns, after, until_ns)
            case "refused":
                return Refused(op, "lock-held", at_ns)
            case "releases":
                return Releasing(op, at_ns)
            case "released":
                return Released(op, at_ns)
            case "loses":
                return Lost(op, "told", at_ns)
        raise ValueError(f"no such verb: {verb}")


def _block(word: str | None) -> str | None:
    if word is None or word == "zeroes":
        return word and ZEROES
    return word.encode().ljust(32, b"\0").hex()


def replay(path: Path) -> tuple[str, str]:
    """(what the file says, what it would say now)."""
    text = path.read_text()
    return text, "\n\n".join(_block_now(block) for block in text.rstrip("\n").split("\n\n")) + "\n"


def _block_now(block: str) -> str:
    before = block.split("\n----")[0]
    lines = [line for line in before.splitlines() if line and not line.startswith("#")]
    if not lines:
        return block
    story = Story()
    for line in lines:
        story.add(line)
    verdict = story.verdict()
    counts = [f"{name}={getattr(verdict, name)}" for name in COUNTS if getattr(verdict, name)]
    return "\n".join([before, "----", *verdict.violations, " ".join(counts)])
