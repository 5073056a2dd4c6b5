"""The loop that runs shots: hand out, wait, take in, and come to an orderly end at Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from ops_aimmd.shooting.executors.base import Executor
from ops_aimmd.shooting.interrupts import Interrupts
from ops_aimmd.shooting.shots import ShotFailure, ShotResult, ShotSpec


class ShotLoop:
    """Runs shots on an executor, each as soon as it is known, until none is left.

    The first Ctrl-C hands out no more shots, withdraws those that have not begun, and waits for the others; the second one
    ends the wait. After an error shots may still run on the executor: a loop that is used again takes them in, if they are
    asked for again, and another one leaves them out.

    Attributes
    ----------
    waiting : dict of str to ShotSpec
        Shots without a result yet.
    n_ended : int
        Shots that were taken in.
    """

    def __init__(self, executor: Executor):
        self.executor = executor
        self.waiting: dict[str, ShotSpec] = {}
        self.n_ended = 0
        self._left: set[str] = set()
        """Shots that the executor has."""
        self._interrupts = Interrupts()

    @property
    def interrupted(self) -> bool:
        """Whether there was a Ctrl-C: no more shots are handed out."""
        return self._interrupts.asked

    def run(self, more: Callable[[], Iterable[ShotSpec]], take: Callable[[ShotResult | ShotFailure], None]) -> bool:
        """Run shots until there are no more, and tell whether Ctrl-C has ended the loop.

        Parameters
        ----------
        more : callable
            Shots that can be handed out now. Called before each wait; what it gives after Ctrl-C is not handed out.
        take : callable
            Called with the result, or failure, of each shot, in the order in which they end.
        """
        self.waiting.clear()
        with Interrupts() as self._interrupts:
            try:
                while True:
                    for spec in more():
                        self._hand_out(spec)
                    if self.interrupted:
                        self._withdraw()
                    if not self.waiting:
                        return self.interrupted
                    with self._interrupts.wait():
                        outcomes = self.executor.results()
                    self._take_in(outcomes, take)
            except BaseException:
                with suppress(RuntimeError):  # it may be the executor that has failed
                    self._withdraw()
                raise

    def _hand_out(self, spec: ShotSpec) -> None:
        if self.interrupted:
            return
        self.waiting[spec.shot_id] = spec
        if spec.shot_id not in self._left:
            self.executor.submit(spec)
            self._left.add(spec.shot_id)

    def _withdraw(self) -> None:
        for shot in self.executor.withdraw():
            self.waiting.pop(shot, None)
            self._left.discard(shot)

    def _take_in(self, outcomes: list, take: Callable) -> None:
        if not outcomes:  # the executor has lost them: another user has taken the results in between
            lost = list(self.waiting.values())
            self.waiting.clear()
            self._left.clear()
            for spec in lost:
                self._hand_out(spec)
        for outcome in outcomes:
            self._left.discard(outcome.shot_id)
            if self.waiting.pop(outcome.shot_id, None) is not None:  # else the shot of an earlier user of the executor
                self.n_ended += 1
                take(outcome)
