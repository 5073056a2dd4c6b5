"""Description of an engine and its states, from which another process builds the same ones, once, and keeps them."""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import cloudpickle
from openpathsampling.engines.delayedinterrupt import EmptyContext
from openpathsampling.netcdfplus import StorableObject

from ops_aimmd.engines.base import EngineAdapter
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.shooting.fingerprint import content_of, fingerprint


@dataclass(frozen=True)
class EngineDescription:
    """An engine and the states where its legs stop, pickled for other processes, under their key (`engine_key`).

    The payload contains functions of a user's script: only processes that trust each other exchange it.
    """

    key: str
    payload: bytes


@dataclass(eq=False)
class PreparedEngine:
    """An engine that is ready to run, the states where its legs stop, and its adapter."""

    engine: object
    states: tuple
    adapter: EngineAdapter = field(init=False)

    def __post_init__(self):
        self.adapter = adapter_of(self.engine)


def engine_key(engine, states: Sequence) -> str:
    """Hash of everything that determines the dynamics of a leg: engine with options and platform, and states.

    The same in every process for the same set-up, also after it was read from a file; seeds of random numbers and uuids do
    not count. An engine that is not initialised has another key than one that is: its platform is not yet known.
    """
    return fingerprint([adapter_of(engine).platform, engine, list(states)])


def describe(engine, states: Sequence) -> EngineDescription:
    """Describe an engine and its states for other processes.

    Objects travel as OPS stores them, by `to_dict` and `from_dict`, and keep their uuids and names; functions of
    collective variables travel by name if they are importable, and else with all that they refer to. The platform of an
    initialised engine and its properties travel along; one that is not initialised gets the platform that is the fastest
    where it arrives.

    Raises
    ------
    TypeError
        If something cannot travel; the message names it.
    """
    payload = _pack((adapter_of(engine).platform, engine, tuple(states)))
    return EngineDescription(engine_key(engine, states), payload)


def prepared_engine(description: EngineDescription) -> PreparedEngine:
    """The engine and the states of a description; built at the first call in this process, then kept.

    The engine ignores Ctrl-C, which the process that submits the shots handles: OPS would install a signal handler at each
    frame, which is not allowed in threads. Raises RuntimeError, with the reason, if they cannot be built here.
    """
    with _building:
        if description.key not in _prepared:
            _prepared[description.key] = _build(description)
        return _prepared[description.key]


_prepared: dict[str, PreparedEngine] = {}
_building = threading.Lock()


def _build(description: EngineDescription) -> PreparedEngine:
    try:
        platform, engine, states = pickle.loads(description.payload)
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"a worker cannot import {error.name!r}, which a state or a collective variable needs: install it where the "
            "workers run or put its folder on their PYTHONPATH, or define the function in the script that is run: "
            "functions of a script travel as code"
        ) from error
    engine.interrupter = EmptyContext
    adapter_of(engine).initialise(platform)
    return PreparedEngine(engine, states)


class _Packer(cloudpickle.Pickler):
    """Pickles OPS objects by `to_dict`, as OPS storage does. An object that occurs twice stays one object."""

    def __init__(self, file):
        super().__init__(file)
        self.seen: list[StorableObject] = []

    def reducer_override(self, thing):
        if not isinstance(thing, StorableObject):
            return super().reducer_override(thing)
        self.seen.append(thing)
        return _rebuild, (thing.__class__, content_of(thing), int(thing.__uuid__), _given_name(thing))


def _rebuild(cls, content: dict, uuid: int, name: str):
    thing = cls.from_dict(content)
    if type(thing) is not cls:
        raise TypeError(
            f"{cls.__name__}.from_dict makes a {type(thing).__name__}: define from_dict in the subclass, so that OPS can "
            "store its objects and workers can build them"
        )
    thing.__uuid__ = uuid
    if name:
        thing.named(name)
    return thing


def _given_name(thing) -> str:
    return getattr(thing, "_name", "")  # integrators of toy engines have none, though of a class of named objects


def _pack(thing) -> bytes:
    file = io.BytesIO()
    packer = _Packer(file)
    try:
        packer.dump(thing)
    except Exception as error:
        culprit = next((part for part in reversed(packer.seen) if not _can_travel(part)), None)
        label = "the engine or a state" if culprit is None else f"{culprit.__class__.__name__} {_given_name(culprit)!r}"
        raise TypeError(
            f"{label} cannot travel to another process ({type(error).__name__}: {error}): workers need an engine "
            "and states that OPS could store; collective variables may use functions of the script and of importable "
            "modules, but no open files or locks. In this process (executor=None) it can run as it is"
        ) from error
    return file.getvalue()


def _can_travel(thing) -> bool:
    try:
        _Packer(io.BytesIO()).dump(thing)
    except Exception:  # whatever it is, this object is where it comes from
        return False
    return True
