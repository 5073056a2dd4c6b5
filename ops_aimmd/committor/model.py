r"""The learned committor: input scaling and a network, from descriptors to the probability of reaching each state.

Two states: the network gives the log-odds :math:`q(x) = \ln p_B / (1 - p_B)` of the *last* state, which is the
reaction coordinate. More states: :math:`p = \mathrm{softmax}(\mathrm{logits})`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor, nn

import ops_aimmd.committor.networks as networks
from ops_aimmd.committor.correlated_shots import Folds
from ops_aimmd.committor.input_scaling import is_far
from ops_aimmd.committor.likelihood import log_committor

N_FOLDS = 5
"""Folds of shots where the network is no ensemble; an ensemble has one per member."""

OLDER_BLOCKS = 2
"""Shots of a block of a fold in models of version 0.1.0."""

LARGEST = 1e300
"""Halves of the range beyond its end at which descriptors no longer grow, so that no number overflows."""


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
    shift, scale : tensor, shape (d,), float64
        The network sees ``(x - shift) * scale``. ``fit`` sets them to the mean and the inverse standard deviation of
        each descriptor times its relevance; the scale of a descriptor that does not vary is 0, so that it is ignored.
    lower, upper : tensor, shape (d,), float64, or None
        Range in which descriptors are taken as they are. Beyond it they are bounded (:meth:`inputs`). ``fit`` sets it; None
        (no bound) in models that were never trained, and in those of version 0.1.0.
    slope : tensor, shape (), float64
        Factor on the logits of the network. ``fit`` sets it so that predictions for shots which a member has not seen are
        neither too sure nor too careful (:mod:`.recalibration`).
    judges : torch.nn.Module or None
        A network like ``network``. Its members have not seen the shots of their fold, while ``network`` has seen all.
        None where ``network`` itself has not.
    folds : Folds or None
        How ``fit`` has dealt the shots: each judge was held out from one fold. None before the first training.
    """

    network: nn.Module
    judges: nn.Module | None
    shift: Tensor
    scale: Tensor
    lower: Tensor | None
    upper: Tensor | None
    slope: Tensor
    _like: Tensor

    _SCALING = ("shift", "scale", "lower", "upper")
    _EXACT = (*_SCALING, "slope")

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
        self.register_buffer("_like", torch.empty(0, dtype=like.dtype, device=like.device), persistent=False)
        self.register_buffer("shift", torch.zeros(self.n_descriptors, dtype=torch.float64, device=like.device))
        self.register_buffer("scale", torch.ones(self.n_descriptors, dtype=torch.float64, device=like.device))
        self.register_buffer("lower", None)
        self.register_buffer("upper", None)
        self.register_buffer("slope", torch.ones((), dtype=torch.float64, device=like.device))
        self.register_module("judges", None)
        self.folds: Folds | None = None
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
        if not isinstance(output, Tensor):
            raise ValueError(f"{needs}; it returned a {type(output).__name__} instead of a tensor")
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
        """Precision of the network."""
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        return self._like.device

    @property
    def n_folds(self) -> int:
        """Folds into which `fit` deals the shots."""
        n_members = getattr(self.network, "n_members", 1)
        return n_members if n_members > 1 else N_FOLDS

    @property
    def of_judges(self) -> CommittorModel:
        """This model as its judges see it; held-out losses are theirs. It shares all tensors with this one."""
        if self.judges is None:
            return self
        model = copy.copy(self)
        model._modules = {"network": self.judges, "judges": None}
        return model

    def set_scaling(self, shift, scale, lower=None, upper=None) -> None:
        """Replace the input scaling by arrays of shape (d,); without ``lower`` and ``upper`` there is no bound."""
        for name, array in zip(self._SCALING, (shift, scale, lower, upper), strict=True):
            tensor = None if array is None else torch.tensor(np.asarray(array), dtype=torch.float64, device=self.device)
            self.register_buffer(name, tensor)

    def calibrated(self, logits: Tensor) -> Tensor:
        """Logits (..., 1 or n_states) of the model from those of its network."""
        return logits * self.slope.to(logits.dtype)

    def scaling(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Arguments of `set_scaling`."""
        lower, upper = (None if bound is None else bound.cpu().numpy() for bound in (self.lower, self.upper))
        return self.shift.cpu().numpy(), self.scale.cpu().numpy(), lower, upper

    def is_far(self, descriptors: np.ndarray) -> np.ndarray:
        """Which rows (n, d) have an outlying value in a column that is used, bool (n,); none where there is no bound."""
        _, scale, lower, upper = self.scaling()
        if lower is None or upper is None:
            return np.zeros(len(descriptors), dtype=bool)
        return (is_far(descriptors, lower, upper) & (scale > 0)).any(axis=1)

    def inputs(self, x: Tensor) -> Tensor:
        r"""What the network sees of descriptors (n, d): shifted and scaled in double precision, then in its own.

        Beyond the range from ``lower`` to ``upper``, of the length 2 h, a descriptor grows like a logarithm,

        .. math:: x \to x_{\mathrm{upper}} + h\, \mathrm{arsinh} \frac{x - x_{\mathrm{upper}}}{h},

        which is strictly increasing and has two continuous derivatives: 1e30 h become 70 h.
        """
        if self.lower is None or self.upper is None:
            return (x.to(self.dtype) - self.shift.to(self.dtype)) * self.scale.to(self.dtype)
        x = x.to(torch.float64)
        within = x.clamp(self.lower, self.upper)
        if not torch.jit.is_tracing() and torch.equal(within, x):
            return ((x - self.shift) * self.scale).to(self.dtype)
        half = self.upper / 2 - self.lower / 2
        beyond = ((x - within) / half).clamp(-LARGEST, LARGEST)
        return ((within - self.shift) * self.scale + torch.asinh(beyond) * (half * self.scale)).to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, 1) or (n, n_states) of descriptors (n, d)."""
        return self.calibrated(self.network(self.inputs(x)))

    def member_logits(self, x: Tensor) -> Tensor:
        """Logits of each member of an ensemble, (n_members, n, 1 or n_states); one member where there is no ensemble."""
        return self.calibrated(networks.member_logits(self.network, self.inputs(x)))

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
            "folds": None if self.folds is None else asdict(self.folds),
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
        folds = description.get("folds", asdict(Folds(model.n_folds, OLDER_BLOCKS)))
        model.folds = None if folds is None else Folds(**folds)
        return model

    def _apply(self, fn, recurse: bool = True):
        """Move the module; scaling and slope stay in double precision."""
        exact = {name: tensor for name in self._EXACT if (tensor := self._buffers[name]) is not None}
        super()._apply(fn, recurse)
        for name, tensor in exact.items():
            self._buffers[name] = tensor.to(getattr(self, name).device)
        return self

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Bounds and judges are there if the stored model has them; models of version 0.1.0 have no slope."""
        state_dict.setdefault(prefix + "slope", torch.ones(()))
        bounded = any(prefix + name in state_dict for name in ("lower", "upper"))
        for name in ("lower", "upper"):
            self._buffers[name] = torch.empty_like(self.shift) if bounded else None
        judged = any(name.startswith(prefix + "judges.") for name in state_dict)
        self.judges = (self.judges or copy.deepcopy(self.network)) if judged else None
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _evaluate(self, function: Callable[[Tensor], Tensor], x):
        if isinstance(x, Tensor):
            self._check(x.ndim, x.shape, lambda: torch.isfinite(x).cpu().numpy())
            with _evaluation_mode(self):
                return function(x.to(self.device))
        x = np.asarray(x)
        self._check(x.ndim, x.shape, lambda: np.isfinite(x))
        with torch.no_grad(), _evaluation_mode(self):
            tensor = torch.tensor(x, dtype=torch.float64, device=self.device)
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
