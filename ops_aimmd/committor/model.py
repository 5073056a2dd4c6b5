r"""The learned committor: input scaling and a network, from descriptors to the probability of reaching each state.

Two states: the network gives the log-odds :math:`q(x) = \ln p_B / (1 - p_B)` of the *last* state, which is the
reaction coordinate. More states: :math:`p = \mathrm{softmax}(\mathrm{logits})`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ops_aimmd.committor import networks
from ops_aimmd.committor.likelihood import log_committor


class CommittorModel(nn.Module):
    """Committor as a function of descriptors.

    Parameters
    ----------
    network : torch.nn.Module
        Maps scaled descriptors (n, d) to logits (n, 1) for two states and (n, n_states) for more.
    n_descriptors : int
        Number of descriptors d.
    n_states : int
        Number of states.

    Attributes
    ----------
    shift, scale : tensor, shape (d,)
        The network sees ``(x - shift) * scale``. ``fit`` sets them to the mean and the inverse standard deviation of
        each descriptor times its relevance; the scale of a descriptor that does not vary is 0, so that it is ignored.
    """

    def __init__(self, network: nn.Module, n_descriptors: int, n_states: int = 2):
        super().__init__()
        if n_states < 2:
            raise ValueError(f"a committor needs at least two states; got n_states={n_states}")
        for name, expected in (("n_inputs", n_descriptors), ("n_outputs", 1 if n_states == 2 else n_states)):
            if getattr(network, name, expected) != expected:
                raise ValueError(
                    f"{n_descriptors} descriptors and {n_states} states need a network with {name}={expected}; "
                    f"got {getattr(network, name)}"
                )
        self.network = network
        self.n_descriptors = int(n_descriptors)
        self.n_states = int(n_states)
        tensors = [t for t in network.parameters() if t.is_floating_point()]
        like = tensors[0] if tensors else torch.empty(0)
        self.register_buffer("shift", torch.zeros(self.n_descriptors, dtype=like.dtype, device=like.device))
        self.register_buffer("scale", torch.ones(self.n_descriptors, dtype=like.dtype, device=like.device))
        self._check_output()

    def _check_output(self) -> None:
        expected = (2, 1 if self.n_states == 2 else self.n_states)
        needs = (
            f"{self.n_descriptors} descriptors and {self.n_states} states need a network that returns (n, {expected[1]})"
        )
        was_training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad():
                output = self.network(torch.zeros(2, self.n_descriptors, dtype=self.dtype, device=self.device))
        except RuntimeError as error:
            raise ValueError(f"{needs}; on an input of shape (2, {self.n_descriptors}) it raised: {error}") from error
        finally:
            self.network.train(was_training)
        if tuple(output.shape) != expected:
            raise ValueError(
                f"{needs} (two states: the log-odds of the last); on an input of shape (2, {self.n_descriptors}) it "
                f"returned {tuple(output.shape)} instead of {expected}"
            )

    @classmethod
    def for_descriptors(
        cls, n_descriptors: int, n_states: int = 2, seed=None, dtype: torch.dtype = torch.float32, device=None
    ) -> CommittorModel:
        """The default model for this number of descriptors, with initial weights drawn from ``seed``."""
        network = networks.default_network(n_descriptors, n_states, seed)
        return cls(network, n_descriptors, n_states).to(dtype=dtype, device=device)

    @property
    def dtype(self) -> torch.dtype:
        return self.shift.dtype

    @property
    def device(self) -> torch.device:
        return self.shift.device

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, 1) or (n, n_states) of descriptors (n, d)."""
        return self.network((x - self.shift) * self.scale)

    def member_logits(self, x: Tensor) -> Tensor:
        """Logits of each member of an ensemble, (n_members, n, 1 or n_states); one member where there is no ensemble."""
        return networks.member_logits(self.network, (x - self.shift) * self.scale)

    def committor(self, x):
        """Probability of reaching the last of two states, shape (n,), or each of more states, shape (n, n_states).

        Parameters
        ----------
        x : array or tensor, shape (n, d)

        Returns
        -------
        float64 array, detached, for an array; tensor that keeps its gradient, for a tensor.

        Raises
        ------
        ValueError
            If ``x`` has another shape or is not finite.
        """
        if self.n_states == 2:
            return self._evaluate(lambda t: torch.sigmoid(self(t)[:, 0]), x)
        return self._evaluate(lambda t: torch.softmax(self(t), dim=-1), x)

    def reaction_coordinate(self, x):
        """Log-odds of the last of two states, shape (n,); ``ln p_i`` of more states, shape (n, n_states).

        Arguments, kind of result and errors as in :meth:`committor`.
        """
        if self.n_states == 2:
            return self._evaluate(lambda t: self(t)[:, 0], x)
        return self.log_committor(x)

    def log_committor(self, x):
        """``ln p_i``, shape (n, n_states), for any number of states; otherwise like :meth:`committor`."""
        return self._evaluate(lambda t: log_committor(self(t)), x)

    def transition_path_probability(self, x):
        r"""Probability :math:`1 - \sum_i p_i^2` that two independent legs end in different states, shape (n,)."""
        return self._evaluate(lambda t: 1 - log_committor(self(t)).mul(2).exp().sum(dim=-1), x)

    def uncertainty(self, x):
        """Standard deviation of the committor over the members of the ensemble; shapes as in :meth:`committor`.

        Zero where the network is no ensemble.
        """

        def spread(t: Tensor) -> Tensor:
            p = log_committor(self.member_logits(t)).exp().std(dim=0, correction=0)
            return p[:, -1] if self.n_states == 2 else p

        return self._evaluate(spread, x)

    def copy(self) -> CommittorModel:
        """An independent copy."""
        return copy.deepcopy(self)

    def frozen_copy(self) -> CommittorModel:
        """An independent copy that is not trained any more: evaluation mode, parameters without gradient."""
        return self.copy().eval().requires_grad_(False)

    def description(self) -> dict:
        """Everything but the numbers, as plain JSON types."""
        return {
            "n_descriptors": self.n_descriptors,
            "n_states": self.n_states,
            "dtype": str(self.dtype).removeprefix("torch."),
            "network": networks.network_description(self.network),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers: parameters and buffers under their torch names."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.state_dict().items()}

    @classmethod
    def from_description(
        cls, description: dict, arrays: dict[str, np.ndarray], network: nn.Module | None = None, device=None
    ) -> CommittorModel:
        """Rebuild a model from :meth:`description` and :meth:`arrays`; nothing from a file is executed.

        Parameters
        ----------
        network : torch.nn.Module, optional
            Needed for a custom network, which a description cannot rebuild; it gets the stored weights.

        Raises
        ------
        ValueError
            If the network is custom and not given, or the arrays do not fit.
        """
        if network is None:
            network = networks.network_from_description(description["network"])
        model = cls(network, description["n_descriptors"], description["n_states"])
        model.to(dtype=getattr(torch, description["dtype"]), device=device)
        try:
            model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
        except RuntimeError as error:
            raise ValueError(f"the stored arrays do not fit the network: {error}") from error
        return model

    def _evaluate(self, function: Callable[[Tensor], Tensor], x):
        if isinstance(x, Tensor):
            self._check(x.ndim, x.shape, lambda: torch.isfinite(x).cpu().numpy())
            with _evaluation_mode(self):
                return function(x.to(dtype=self.dtype, device=self.device))
        x = np.asarray(x)
        self._check(x.ndim, x.shape, lambda: np.isfinite(x))
        with torch.no_grad(), _evaluation_mode(self):
            tensor = torch.tensor(x, dtype=self.dtype, device=self.device)
            return function(tensor).cpu().numpy().astype(np.float64)

    def _check(self, ndim: int, shape, is_finite: Callable[[], np.ndarray]) -> None:
        if ndim != 2 or shape[1] != self.n_descriptors:
            raise ValueError(f"this model takes descriptors of shape (n, {self.n_descriptors}); got shape {tuple(shape)}")
        finite = is_finite()
        if not finite.all():
            rows = np.flatnonzero(~finite.all(axis=1))
            raise ValueError(f"descriptors must be finite; NaN or infinite in rows {rows[:10].tolist()} of {shape[0]}")


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    training = [m for m in module.modules() if m.training]
    for m in training:
        m.training = False
    try:
        yield
    finally:
        for m in training:
            m.training = True
