"""fencing = "pacemaker" against a real one: what its fencer is asked, what is believed of it, what is not."""

import subprocess
import sys
import threading
import time

import pytest
from pacemaker_world import PacemakerWorld, eventually

pytestmark = pytest.mark.long

ON, OFF, NOTHING = 0, 2, 1


def ask(
    world: PacemakerWorld, action: str, node: str = "n2", more: str = ""
) -> subprocess.CompletedProcess[str]:
    """As the daemon of n1 runs the agent."""
    return world.hosts[1].run(
        sys.executable, "-I", "-m", "ringfence.agents.pacemaker",
        stdin=f"timeout=20\nlag=1\nnodename={node}\n{more}action={action}\n",
    )  # fmt: skip


def test_it_switches_off_by_the_fencer_and_sees_it_at_the_device(world: PacemakerWorld) -> None:
    assert ask(world, "monitor").returncode == 0
    assert ask(world, "status").returncode == ON
    done = ask(world, "off")
    assert (done.returncode, done.stdout) == (0, "Pacemaker switched bmc[bmc2] off\n")
    assert world.switched() == ["fence_ipmilan off bmc2 n2"]
    seen = ask(world, "status")
    assert (seen.returncode, seen.stderr) == (OFF, 'bmc[bmc2]: "off"\n')
    assert ask(world, "status", "n1").returncode == ON
    assert ask(world, "on").returncode == 0
    assert ask(world, "status").returncode == ON


def test_a_second_supply_is_looked_at_too(world: PacemakerWorld) -> None:
    world.lie("bmc2", "unreachable")
    assert ask(world, "off").stdout == "Pacemaker switched pdu-a[a2] and pdu-b[b2] off\n"
    assert ask(world, "status").returncode == OFF
    world.set("b2", "on")
    seen = ask(world, "status")
    assert seen.returncode == NOTHING
    assert "pdu-b[b2]: on" in seen.stderr


def test_a_device_that_lies_to_pacemaker_is_caught_by_the_look(world: PacemakerWorld) -> None:
    world.lie("bmc2", "ignored")
    assert ask(world, "off").stdout.startswith("already off"), "Pacemaker believes its agent"
    assert ask(world, "status").returncode == ON


def test_pacemakers_own_fencing_of_the_same_loss_is_the_same_run(world: PacemakerWorld) -> None:
    """Two that want the same at once: the agent runs once, and both are answered by it."""
    world.lie("bmc2", "slow")
    with other(world, "--fence", "n2"):
        assert ask(world, "off").stdout == "Pacemaker switched bmc[bmc2] off\n"
    assert world.switched() == ["fence_ipmilan off bmc2 n2"]


def test_a_reboot_that_pacemaker_began_does_not_bring_the_host_back(world: PacemakerWorld) -> None:
    world.lie("bmc2", "slow")
    with other(world, "--reboot", "n2"):
        assert ask(world, "off").stdout == "Pacemaker switched bmc[bmc2] off\n"
    assert world.switched()[-1] == "fence_ipmilan off bmc2 n2"
    assert (world.power("bmc2"), ask(world, "status").returncode) == ("off", OFF)


def test_what_was_off_before_was_not_switched(world: PacemakerWorld) -> None:
    """A device that is stuck at "off": Pacemaker's agent sends nothing to such a one, and says "done"."""
    world.set("bmc2", "off")
    done = ask(world, "off")
    assert (done.returncode, done.stdout) == (0, "already off: no level of plugs went from on to off\n")


def test_what_pacemaker_had_fenced_by_itself_is_switched_on_and_off_where_that_may_be(
    world: PacemakerWorld,
) -> None:
    assert world.hosts[1].run("stonith_admin", "--fence", "n2").returncode == 0
    assert ask(world, "off").stdout.startswith("already off")
    done = ask(world, "off", more="cycle=1\n")
    assert (done.returncode, done.stdout) == (0, "Pacemaker switched bmc[bmc2] off\n")
    words = [line.split()[1] for line in world.switched()]
    assert (words, world.power("bmc2")) == (["off", "off", "on", "off"], "off")


def test_a_success_from_before_is_not_asked_for_but_the_off_is(world: PacemakerWorld) -> None:
    assert world.hosts[1].run("stonith_admin", "--fence", "n2").returncode == 0
    world.set("bmc2", "on")  # it came back
    assert ask(world, "off").returncode == 0
    assert (world.power("bmc2"), len(world.switched())) == ("off", 2)


def test_a_persons_word_to_pacemaker_is_no_word_of_a_device(world: PacemakerWorld) -> None:
    """It ends the request that waits, with success, while the agent still runs and nothing is off."""
    world.lie("bmc2", "slow")
    answers: list[subprocess.CompletedProcess[str]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(world, "off")))
    asking.start()
    eventually(world.switched, world.hosts[1])
    assert world.hosts[1].run("stonith_admin", "--confirm", "n2").returncode == 0
    asking.join()
    assert world.power("bmc2") == "on", "it was answered before the agent had done anything"
    assert answers[0].returncode == NOTHING
    assert "a person confirmed it to Pacemaker" in answers[0].stderr
    eventually(lambda: world.power("bmc2") == "off", world.hosts[1])


def test_what_pacemaker_cannot_is_said_in_one_line(world: PacemakerWorld) -> None:
    done = ask(world, "off", "n9")
    assert (done.returncode, done.stderr.count("\n")) == (NOTHING, 1)
    assert ask(world, "status", "n9").returncode == NOTHING
    for plug in ("bmc2", "a2"):
        world.lie(plug, "unreachable")
    began = time.monotonic()
    done = ask(world, "off")
    assert (done.returncode, done.stderr.count("\n")) == (NOTHING, 1)
    assert "Couldn't fence n2" in done.stderr
    assert time.monotonic() - began < 60
    assert ask(world, "status").returncode == NOTHING


class other:
    """Somebody else's order to the fencer, which runs for a while: entered once the agent runs."""

    def __init__(self, world: PacemakerWorld, *words: str) -> None:
        self._world = world
        self._order = threading.Thread(target=lambda: world.hosts[1].run("stonith_admin", *words))

    def __enter__(self) -> None:
        self._order.start()
        eventually(self._world.switched, self._world.hosts[1])

    def __exit__(self, *_: object) -> None:
        self._order.join()


@pytest.mark.parametrize(
    "words", ["action=off\n", "action=cycle\nnodename=n2\n", "action=off\nplug=--confirm\n"]
)
def test_what_it_does_not_know_it_does_not_do(world: PacemakerWorld, words: str) -> None:
    done = world.hosts[1].run(sys.executable, "-I", "-m", "ringfence.agents.pacemaker", stdin=words)
    assert (done.returncode, done.stderr.count("\n"), world.switched()) == (NOTHING, 1, [])
