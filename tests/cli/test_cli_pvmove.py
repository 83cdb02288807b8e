"""How far pvmove is, for who waits for it."""

from ringfence.cli.verbs.pvmove import progress_line


def row(done: int, size: int, what: str = "moved") -> dict[str, object]:
    return {"vg": "vg0", "lv": "vm1", "what": what, "done_bytes": done, "size_bytes": size}


def test_what_is_moved_is_told_in_stock_lvm2s_words() -> None:
    assert progress_line("/dev/sdb", [row(1, 3), row(5, 9, "wiped")]) == "/dev/sdb: Moved: 33.33%"
    assert progress_line("/dev/sdb", [row(1, 4), row(3, 4)]) == "/dev/sdb: Moved: 50.00%"
    assert progress_line("/dev/sdb", [row(5, 9, "wiped")]) == ""
