"""What fresh looks at Pacemaker's devices say together of one host.  Pure.

The rules are those of a level of ringfence's own (`fencing.level_run`): all devices of one level must be off;
a device that sees the host itself and says "on" refutes all others; a controller that answers from behind
outlets that are "off" refutes them; an outlet that is on says nothing against a host that is off."""

from collections.abc import Mapping, Sequence

import msgspec

from ringfence.agents.pacemaker.cib import Plug
from ringfence.config.agents.stock import stock_agent
from ringfence.core.cluster import Confirms
from ringfence.core.evidence import Power


class Look(msgspec.Struct, frozen=True):
    plug: Plug
    power: Power
    words: str = ""

    @property
    def says(self) -> str:
        """Its answer, or why there is none."""
        return self.words if self.words and self.power is Power.UNKNOWN else self.power.value

    @property
    def confirms(self) -> Confirms | None:
        """None: what an off of this agent proves is not known, or nothing."""
        stock = stock_agent(self.plug.agent)
        return stock.confirms if stock is not None else None

    @property
    def inside(self) -> bool:
        """It lives from the host's own outlets."""
        stock = stock_agent(self.plug.agent)
        return self.confirms is Confirms.HOST_OFF and stock is not None and not stock.own_supply


Looks = Mapping[str, Sequence[Look]]
"""Device -> a look at each of its plugs; missing or empty: it could not be asked."""


def judge(levels: Sequence[Sequence[str]], looks: Looks) -> tuple[Power, str]:
    """
    Args:
        levels: ids of devices, a level each.

    Returns: OFF only if a whole level is off, its kind is power, and nothing refutes it; and one line.
    """
    seen = [look for some in looks.values() for look in some]
    on = [look.plug.label for look in seen if look.confirms is Confirms.HOST_OFF and look.power is Power.ON]
    if on:
        return Power.ON, f'{" and ".join(on)}: "on"'
    why = ""
    for level in levels:
        of_level = [look for device in level for look in looks.get(device, ())]
        whole = all(looks.get(device) for device in level)
        if not whole or any(look.power is not Power.OFF for look in of_level):
            continue
        said = " and ".join(look.plug.label for look in of_level)
        kinds = {look.confirms for look in of_level}
        alive = [look.plug.label for look in seen if look.inside and look.power is Power.OFF]
        if Confirms.HOST_OFF in kinds:
            return Power.OFF, f'{said}: "off"'
        if kinds != {Confirms.OUTLET_OFF}:
            why = f"{said}: off, which proves nothing of the host's power"
        elif alive:
            why = f"{said}: off, but {' and '.join(alive)} still answers from behind outlets that are off"
        else:
            return Power.OFF, f'{said}: "off"'
    if why:
        return Power.UNKNOWN, why
    if seen and all(look.power is Power.ON for look in seen):
        return Power.ON, "all plugs are on"
    told = "; ".join(f"{one.plug.label}: {one.says}" for one in seen)
    return Power.UNKNOWN, f"no level of Pacemaker's is off as a whole ({told or 'no device could be asked'})"


def plugs_on(looks: Looks) -> tuple[Plug, ...]:
    return tuple(look.plug for some in looks.values() for look in some if look.power is Power.ON)


def switched(levels: Sequence[Sequence[str]], before: Looks, after: Looks) -> str:
    """The plugs of the first level that was really switched: seen on before, and off after.

    Agents that find a plug off send nothing and report success.  So what was off before shows nothing: of
    outlets each must have changed, of a level with a device that sees the host one such.  Empty: none."""
    were_on = plugs_on(before)
    changed = [
        look.plug
        for some in after.values()
        for look in some
        if look.power is Power.OFF and look.plug in were_on
    ]
    for level in levels:
        of_level = [look for device in level for look in before.get(device, ())]
        seeing = [look for look in of_level if look.confirms is Confirms.HOST_OFF]
        went = [look.plug.label for look in of_level if look.plug in changed]
        whole = any(look.plug in changed for look in seeing) if seeing else len(went) == len(of_level)
        if went and whole and all(before.get(device) for device in level):
            return " and ".join(went)
    return ""
