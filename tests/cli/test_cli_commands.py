"""The table of commands: help without imports, rooms that are missing, wrong lines."""

import resource
import signal
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from cli_daemon import CannedDaemon
from cli_run import Run

import ringfence
from ringfence.block import fastpath
from ringfence.cli import commands, main
from ringfence.cli.commands import COMMANDS, Entry, load
from ringfence.client import exchange

ROOMS = ("ring", "engine", "daemon", "block", "sim", "lab", "client.blocking", "config", "wire")


def test_help_names_every_command_and_imports_no_room() -> None:
    script = (
        "import sys\nfrom ringfence.cli import main\nmain(['--help'])\n"
        f"print([room for room in {ROOMS} if 'ringfence.' + room in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    for name in COMMANDS:
        assert f"\n  {name} " in ran.stdout
    assert ran.stdout.endswith("[]\n")
    assert took_s < 2, "CPU time: far below 0.3 s here, and more where the CPU is slow, not where it is busy"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_the_table_s_line_is_short(name: str, run: Run) -> None:
    entry = COMMANDS[name]
    assert len(entry.help) < 70
    assert entry.help.endswith(".")
    try:
        ran = run(name, "--help")
        code, out = ran.code, ran.out
    except SystemExit as ended:  # argparse's way
        code, out = ended.code, "Usage: "
    assert code == 0
    assert "sage: " in out


def test_a_room_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setitem(COMMANDS, "gone", Entry(commands.SERVICES, "ringfence.gone.commands:gone", "Gone."))
    ran = run("gone")
    assert (ran.code, ran.out) == (5, "")
    assert ran.err == (
        "  `ringfence gone` is not in this installation; "
        "install a ringfence that has ringfence.gone.commands\n"
    )
    assert run("--help").code == 0


def test_a_bug_in_a_room_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory
) -> None:
    (tmp_path / "rf_broken_room.py").write_text("import nosuchmodule\n")  # type: ignore[operator]
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="nosuchmodule"):
        load("x", Entry("", "rf_broken_room:x", ""))


def test_the_version_tells_what_runs_in_c(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = run("--version").out.splitlines()
    assert first == f"ringfence, version {version('ringfence')}"
    assert second == "in C: client/exchange yes, block/fastpath yes"
    monkeypatch.setattr(fastpath, "LIBRARY", tmp_path / "fastpath.so")
    monkeypatch.setattr(exchange, "IN_C", False)
    second = run("--version").out.splitlines()[1]
    assert second.startswith("in C: client/exchange no (it was not built, ")
    assert f", block/fastpath no ({tmp_path}/fastpath.so was not built " in second


def test_after_ctrl_c_a_change_may_have_been_made(daemon: CannedDaemon, run: Run) -> None:
    def interrupted(call: object) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    daemon.answer = interrupted
    told = "  Interrupted; what the daemon had begun may be done: see lvs -a, vgs\n"
    assert run("lvcreate", "-L4m", "vg0") == (130, "", told)
    told = "  The hosts go on with it; wait: pvmove; give it up: pvmove --abort\n"
    assert run("pvmove", "/x") == (130, "", told)
    assert run("lvs") == (130, "", "")
    for words in (["lvcreate", "-L4m", "vg0"], ["lvs"], ["status"], ["lock", "games", "chess"]):
        ran = run(*words, "--json")
        assert (ran.code, ran.err.strip()) == (130, "")
        assert ran.json["error"]["code"] == "interrupted"
    told = "  Interrupted; the hosts may go on with it: ringfence why vg0/vm1; take it back: "
    told += "ringfence handover vg0/vm1 --abort\n"
    assert run("handover", "vg0/vm1", "--to", "n2") == (130, "", told)
    assert run("handover", "--socket", str(daemon.path), "/dev/vg0/vm1", "--to", "n2") == (130, "", told)


@pytest.mark.parametrize("loaded", ["ringfence.cli", "ringfence.cli.verbs.run", "ringfence.cli.tree"])
def test_ctrl_c_while_a_command_is_loaded_is_no_traceback(loaded: str) -> None:
    script = (
        "import os, signal, sys\n"
        "class Typed:\n"
        "    def find_spec(self, name, *more):\n"
        f"        if name == {loaded!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Typed())\n"
        "from ringfence.__main__ import main\n"
        "sys.exit(main())\n"
    )
    words = ["lvs"] if "tree" not in loaded else ["status"]
    ran = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nosuch"], "ringfence: No such command 'nosuch'; see `ringfence --help`"),
        (["lvcreat", "-L", "3m"], "ringfence: No such command 'lvcreat'; is it lvcreate?; see"),
        (["status", "--nosuch"], "ringfence status: No such option '--nosuch'"),
        (["fence", "history", "--nosuch"], "ringfence fence history: No such option '--nosuch'"),
        (["why", "a", "b"], "ringfence why: Got unexpected extra argument (b)"),
        (["events", "-n", "x"], "ringfence events: Invalid value for '-n' / '--last'"),
    ],
)
def test_a_wrong_line_is_3_and_one_line(run: Run, words: list[str], expected: str) -> None:
    ran = run(*words)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("  " + expected)
    assert ran.err.count("\n") == 1
    as_json = run(*words, "--json")
    assert as_json.code == 3
    assert as_json.json["error"]["code"] == "bad-command"


@pytest.mark.parametrize("path", ["events --kind", "fence disarm --for", "fence --who"])
def test_who_leaves_out_an_option_s_value_is_sent_to_the_command_s_own_help(run: Run, path: str) -> None:
    *words, option = path.split()
    named = " ".join(["ringfence", *words])
    told = f"  {named}: Option '{option}' requires an argument; see `{named} --help`\n"
    assert run(*words, option) == (3, "", told)


@pytest.mark.parametrize("words", [[], ["fence"], ["config"]])
def test_a_group_alone_is_3_and_shows_its_help(run: Run, words: list[str]) -> None:
    ran = run(*words)
    assert (ran.code, ran.out) == (3, "")
    assert "Usage: " in ran.err
    assert "Commands:" in ran.err or "Fencing:" in ran.err


def test_a_command_s_own_exit_code_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def ten() -> None:
        sys.exit(10)

    monkeypatch.setattr(commands, "load", lambda name, entry: ten)
    with pytest.raises(SystemExit) as ended:
        main(["sim"])
    assert ended.value.code == 10


SLOW = (
    "click", "rich", "asyncio", "msgspec", "decimal", "datetime", "subprocess", "dataclasses", "inspect",
    "threading", "pathlib", "ringfence.cli.commands",
)  # fmt: skip
SLOWER_THAN_A_CHANGE = (
    "re", "enum", "typing", "collections", "functools", "contextlib", "warnings", "json", "socket",
    "selectors",
)  # fmt: skip
"""Any of them takes as long to load as all of ours that such a verb needs."""


@pytest.mark.parametrize(
    ("line", "slow"),
    [
        ("lvs", SLOW),
        ("lvcreate -an -l 1 -n a vg", SLOW + SLOWER_THAN_A_CHANGE),
        ("lvcreate -L 1.5g -n a vg", SLOW + SLOWER_THAN_A_CHANGE),
        ("lvextend -l +50%FREE vg/a", SLOW + SLOWER_THAN_A_CHANGE),
        ("lvchange -aey vg/a", SLOW + SLOWER_THAN_A_CHANGE),
        ("lvremove -y vg/a", SLOW + SLOWER_THAN_A_CHANGE),
        ("vgchange -an vg", SLOW + SLOWER_THAN_A_CHANGE),
        ("pvcreate /dev/a", SLOW + SLOWER_THAN_A_CHANGE),
    ],
)
def test_a_verb_loads_only_what_it_needs(line: str, slow: tuple[str, ...]) -> None:
    """A command that is typed all day starts in the time that Python itself needs, and little more.

    Without `site`, in which what is installed beside us may load anything."""
    script = (
        f"import sys\nsys.path.insert(0, {str(Path(ringfence.__file__).parents[1])!r})\n"
        f"from ringfence.__main__ import main\nsys.argv[1:] = [*{line.split()!r}, '--socket', '/nosuch']\n"
        f"main()\nprint([one for one in {slow!r} if one in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-ISc", script], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "[]\n"
    assert "no ringfence daemon listens on /nosuch" in ran.stderr


def test_a_verb_ends_with_all_said() -> None:
    """It does not wait for Python to be taken apart, and what is in its buffers must not go with it."""
    line = [sys.executable, "-m", "ringfence", "lvcreate"]
    helped = subprocess.run([*line, "--help"], capture_output=True, text=True, timeout=60)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert helped.stdout.endswith("read-ahead (-r/--readahead).\n")
    wrong = subprocess.run([*line, "--nosuch"], capture_output=True, text=True, timeout=60)
    assert (wrong.returncode, wrong.stdout) == (3, "")
    assert wrong.stderr.endswith("see `ringfence lvcreate --help`\n")
    with open("/dev/full", "w") as full:
        unsaid = subprocess.run([*line, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (unsaid.returncode, unsaid.stderr) == (5, "  cannot write the answer: No space left on device\n")


def test_completion_loads_nothing() -> None:
    script = (
        "import sys\nfrom ringfence.cli import main\n"
        "try: main()\nfinally: print('ringfence.sim' in sys.modules)"
    )
    environment = {"_RINGFENCE_COMPLETE": "bash_complete", "COMP_WORDS": "ringfence lv", "COMP_CWORD": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    names = [name for name in COMMANDS if name.startswith("lv")]
    assert ran.stdout.splitlines() == [*(f"plain,{name}" for name in names), "False"]
    assert {"lvs", "lvcreate"} <= set(names)
