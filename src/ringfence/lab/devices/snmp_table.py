"""What a switched rack PDU of APC's says of its outlets over SNMP: the program of snmpd's `pass_persist`.

    python -m ringfence.lab.devices.snmp_table POWER PDU HOST…

HOSTs are those of outlets 1, 2, …; POWER is the power switch's socket, PDU how it knows the device.
Source: snmpd.conf(5), pass_persist; APC PowerNet-MIB, rPDUOutletControlTable and rPDUOutletStatusTable."""

import sys
from collections.abc import Iterator

from ringfence.lab.devices.ask import ask

CONTROL = (1, 3, 6, 1, 4, 1, 318, 1, 1, 12, 3, 3, 1, 1)
STATUS = (1, 3, 6, 1, 4, 1, 318, 1, 1, 12, 3, 5, 1, 1)
INDEX, NAME, STATE, COMMAND, PENDING = 1, 2, 4, 4, 5
ORDERS = {1: "on", 2: "off", 3: "cycle"}
Oid = tuple[int, ...]


class Table:
    def __init__(self, power: str, pdu: str, hosts: list[str]) -> None:
        self._power, self._pdu, self._hosts = power, pdu, hosts
        columns = [(CONTROL, INDEX), (CONTROL, NAME), (CONTROL, COMMAND)]
        columns += [(STATUS, INDEX), (STATUS, NAME), (STATUS, STATE), (STATUS, PENDING)]
        self._oids = sorted(
            (*table, column, number) for table, column in columns for number in range(1, len(hosts) + 1)
        )

    def get(self, oid: Oid) -> list[str]:
        if oid not in self._oids:
            return ["NONE"]
        *table, column, number = oid
        host = self._hosts[number - 1]
        if column == INDEX:
            return [_text(oid), "integer", str(number)]
        if column == NAME:
            return [_text(oid), "string", host]
        says = ask(self._power, host, self._pdu, "status")
        if says is None:
            return ["NONE"]
        if tuple(table) == STATUS and column == PENDING:
            return [_text(oid), "integer", "1" if says["pending"] else "2"]
        return [_text(oid), "integer", "1" if says["power"] == "on" else "2"]

    def next(self, oid: Oid) -> list[str]:
        later = [one for one in self._oids if one > oid]
        return self.get(later[0]) if later else ["NONE"]

    def set(self, oid: Oid, value: str) -> list[str]:
        """`value`: "integer 2"."""
        if oid not in self._oids or oid[:-2] != CONTROL or oid[-2] != COMMAND:
            return ["not-writable"]
        kind, _, number = value.partition(" ")
        if kind.lower() != "integer" or not number.strip().isdigit():
            return ["wrong-type"]
        action = ORDERS.get(int(number))
        if action is None:
            return ["wrong-value"]
        done = ask(self._power, self._hosts[oid[-1] - 1], self._pdu, action)
        return ["DONE" if done is not None else "not-writable"]


def _oid(text: str) -> Oid:
    return tuple(int(part) for part in text.strip(".").split(".") if part)


def _text(oid: Oid) -> str:
    return "." + ".".join(map(str, oid))


def answers(table: Table, lines: Iterator[str]) -> Iterator[list[str]]:
    for line in lines:
        if line == "PING":
            yield ["PONG"]
        elif line == "get":
            yield table.get(_oid(next(lines)))
        elif line == "getnext":
            yield table.next(_oid(next(lines)))
        elif line == "set":
            oid, value = _oid(next(lines)), next(lines)
            yield table.set(oid, value)
        # A blank line means: end; but snmpd also ends a value with one.  That it is gone says as much.


def main(power: str, pdu: str, *hosts: str) -> None:
    table = Table(power, pdu, list(hosts))
    lines = (line.rstrip("\n") for line in iter(sys.stdin.readline, ""))
    for answer in answers(table, lines):
        print("\n".join(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
