"""Sizes as LVM2 reads and prints them.

Source: LVM2 lib/misc/lvm-string.c and tools/lvmcmdline.c (_size_arg) for input, libdm/libdm-string.c
(dm_size_to_string) for output; lvmreport(7), "units"."""

from ringfence.core.errors import BadInput

_SECTOR_BYTES = 512
_LETTERS = "kmgtpe"
_UNITS_READ = {letter + rest: letter for letter in f"bs{_LETTERS}" for rest in ("", "b", "ib")} | {"": ""}
_PERCENTS = {
    "V": "VG", "VG": "VG", "F": "FREE", "FR": "FREE", "FREE": "FREE", "P": "PVS", "PV": "PVS", "PVS": "PVS",
    "L": "LV", "LV": "LV", "O": "ORIGIN", "OR": "ORIGIN", "ORIGIN": "ORIGIN",
}  # fmt: skip
"""As LVM2 abbreviates them."""
LARGEST_BYTES = (1 << 63) - 1
UNITS = "rRhHbBsSkKmMgGtTpPeE"
READABLE = "r"
"""LVM2's default: the largest unit that fits, `<` where two decimals rounded it up."""


def parse_size(text: str, default_unit: str = "m") -> int:
    """A size in bytes.  Units are base two whatever their case; without one it is MiB.

    A fraction that is no whole number of bytes, as 1.1g has one, counts in whole sectors, as in LVM2.

    Raises BadInput for anything else, zero and less included."""
    wanted = text.strip()
    number = wanted.rstrip("bskmgtpeiBSKMGTPEI")
    known = _UNITS_READ.get(wanted[len(number) :].lower())
    whole, _, decimals = number.rstrip().partition(".")
    if known is None or not _is_number(whole + decimals):
        raise BadInput(f"{text!r} is not a size", next="give a number and a unit, for example 64m or 1.5g")
    unit = (known or default_unit).lower()
    factor = {"b": 1, "s": _SECTOR_BYTES}.get(unit) or 1 << 10 * (_LETTERS.index(unit) + 1)
    size, rest = divmod(int(whole + decimals) * factor, int(10 ** len(decimals)))
    if rest and unit == "b":
        raise BadInput(f"{text} is not a whole number of bytes", next="leave out the fraction")
    if rest:
        size -= size % _SECTOR_BYTES
    if not 0 < size <= LARGEST_BYTES:
        raise BadInput(f"size {text} cannot be", next="give a size above 0 and below 8e")
    return size


def parse_extents(text: str) -> tuple[int, str]:
    """`lvcreate -l`'s argument: a number of extents, or (percentage, of what).  Raises BadInput."""
    sign, count, percent = parse_signed_extents(text)
    if sign:
        raise BadInput(f"{text!r} is not a number of extents", next="give 25, 50%VG or 100%FREE")
    return count, percent


def parse_signed_extents(text: str) -> tuple[str, int, str]:
    """`lvresize -l`'s argument: (sign, number, "VG" | "FREE" | "PVS" | "LV" | "ORIGIN" | "").

    Raises BadInput."""
    wanted = text.strip()
    sign = wanted[:1] if wanted[:1] in ("+", "-") else ""
    digits, percents, of = wanted[len(sign) :].partition("%")
    if not _is_number(digits) or (percents and not (of.isascii() and of.isalpha())):
        raise BadInput(f"{text!r} is not a number of extents", next="give 25, 50%VG or 100%FREE")
    count, percent = int(digits), of.upper()
    if percent and percent not in _PERCENTS:
        raise BadInput(f"percentages of {of} are not known", next="give %VG, %FREE, %PVS, %LV or %ORIGIN")
    if count == 0:
        raise BadInput("0 extents cannot be", next="give 1 or more")
    return sign, count, _PERCENTS.get(percent, "")


def parse_signed_size(text: str, default_unit: str = "m") -> tuple[str, int]:
    """`lvresize -L`'s argument: (sign, bytes).  Raises BadInput."""
    text = text.strip()
    sign = text[0] if text[:1] in ("+", "-") and len(text) > 1 else ""
    return sign, parse_size(text[len(sign) :], default_unit)


def sized(size_bytes: int) -> str:
    """As LVM2 prints sizes in messages: two decimals, the largest unit that fits."""
    for unit, shift in (("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size_bytes >= 1 << shift:
            return f"{size_bytes / (1 << shift):.2f} {unit}"
    return f"{size_bytes} B"


def parse_unit(text: str) -> str:
    """`--units`' argument, as `format_size` takes it: a letter, or a number of such units ("4m").

    Raises BadInput."""
    number, letter = text[:-1], text[-1:]
    whole, _, decimals = number.partition(".")
    known = letter and letter in UNITS and (not number or (_is_number(whole) and _is_number(decimals or "0")))
    if not known or (number and not _factor(text)):
        raise BadInput(f"--units {text}: give one of {' '.join(UNITS)}, or a number with it, for example 4m")
    return letter if letter in "rRhH" or not number or float(number) == 1 else text


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _factor(unit: str) -> int:
    """Bytes of a unit that is a number of others; decimals are cut."""
    number, letter = unit[:-1], unit[-1]
    base = 1000 if letter.isupper() else 1024
    power = _LETTERS.find(letter.lower()) + 1
    whole, _, decimals = number.partition(".")
    one = _SECTOR_BYTES if letter in "sS" else base**power
    return int(whole + decimals) * one // int(10 ** len(decimals))


def format_size(size_bytes: int, unit: str = READABLE, *, suffix: bool = True) -> str:
    """As `pvs --units UNIT` prints it.  Capital letters count in powers of 1000 (B and S do not differ)."""
    if len(unit) > 1:
        label = unit[-1] if unit.partition(".")[0] == "1" else "U"  # as LVM2 reads 1.5g: a whole 1 of it
        if label in "bBsS":
            return f"{size_bytes // _factor(unit)}{label.upper() if suffix else ''}"
        hundredths, _ = _hundredths(size_bytes, _factor(unit))
        shown = f"{hundredths // 100}.{hundredths % 100:02d}" if size_bytes else "0"
        return f"{shown}{label if suffix else ''}"
    assert unit in tuple(UNITS)
    base = 1000 if unit.isupper() else 1024
    letters = _LETTERS.upper() if unit.isupper() else _LETTERS
    kind = unit.lower()
    if kind in "bs":
        divisor = 1 if kind == "b" else 512
        # Always capital: lower-case b and s would look like "bits" and "seconds".
        return f"{size_bytes // divisor}{kind.upper() if suffix else ''}"
    if size_bytes == 0:
        return f"0{(unit if kind not in 'rh' else ' ') if suffix else ''}"
    if kind in "rh":
        power = 0
        while power < len(letters) and size_bytes >= base ** (power + 1):
            power += 1
        letter = letters[power - 1] if power else "B"
    else:
        power = _LETTERS.index(kind) + 1
        letter = unit
    if not power:
        shown, more = str(size_bytes), False
    else:
        hundredths, more = _hundredths(size_bytes, base**power)
        shown = f"{hundredths // 100}.{hundredths % 100:02d}"
    mark = "<" if kind == "r" and more else ""
    # A readable size without its letter could be anything: LVM2 keeps it whatever was asked.
    return f"{mark}{shown}{letter if suffix or kind in 'rh' else ''}"


def _hundredths(size_bytes: int, divisor: int) -> tuple[int, bool]:
    """Rounded, and whether that was up; half goes to the even one, as printf has it."""
    hundredths, rest = divmod(size_bytes * 100, divisor)
    more = 2 * rest > divisor or (2 * rest == divisor and hundredths % 2 == 1)
    return hundredths + more, more
