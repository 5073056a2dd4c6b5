r"""Small networks: descriptors (n, d) -> logits (n, 1) for two states, (n, n_states) for more.

Shooting results are few and noisy, so the networks are small, and training them is limited by the overhead of each
tensor operation rather than by arithmetic. Every network here is therefore a *stack* of ``n_members`` independent
networks of one architecture whose weights lie in one tensor: five members are evaluated and trained at once, for
little more than the price of one. The members differ by their initial weights and by the shots held out from their
training; their mean is the prediction and their spread its uncertainty (Lakshminarayanan et al., 2017,
arXiv:1612.01474).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeGuard, cast

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "tanh": torch.tanh,
    "silu": nn.functional.silu,
    "relu": torch.relu,
    "elu": nn.functional.elu,
    "softplus": nn.functional.softplus,
    "selu": torch.selu,
}

INITIAL_OUTPUT = 0.1
"""Gain of the output layer at first: an untrained model predicts committors close to 1/2."""

OUTPUT_PRIOR = 3.0
"""Gain of the output layer under the prior: log-odds of a few units (+-3: committors of 0.05 and 0.95) are normal."""


def make_generator(seed) -> torch.Generator:
    """A generator of our own on the CPU: ``seed`` None draws one from the operating system, a generator is passed on."""
    if isinstance(seed, torch.Generator):
        return seed
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(int(seed))
    return generator


class StackedLinear(nn.Module):
    r"""``n_members`` independent affine maps, :math:`y_k = x_k W_k + b_k`, as one batched matrix product.

    Parameters
    ----------
    initial_gain : float
        Initial weights are normal with standard deviation ``initial_gain / sqrt(n_inputs)``, biases zero.
    prior_gain : float
        The prior of the weights in training is normal with standard deviation ``prior_gain / sqrt(n_inputs)``: a sum
        over inputs of variance 1 then has the standard deviation ``prior_gain``, however many inputs there are.
    """

    def __init__(self, n_members: int, n_inputs: int, n_outputs: int, initial_gain=1.0, prior_gain=1.0):
        super().__init__()
        if n_inputs < 1 or n_outputs < 1:
            raise ValueError(f"layers need a width of at least 1; got one of {n_inputs} inputs and {n_outputs} outputs")
        self.initial_gain = initial_gain
        self.prior_gain = prior_gain
        self.weight = nn.Parameter(torch.empty(n_members, n_inputs, n_outputs))
        self.bias = nn.Parameter(torch.empty(n_members, 1, n_outputs))

    def draw(self, generator: torch.Generator) -> None:
        """Draw new weights."""
        weight = torch.randn(self.weight.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            self.weight.copy_(weight * self.initial_gain / math.sqrt(self.weight.shape[1]))
            self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(n_members, n, n_inputs) -> (n_members, n, n_outputs)."""
        return torch.baddbmm(self.bias, x, self.weight)

    def of_shared(self, x: Tensor) -> Tensor:
        """The linear part for inputs that all members share, (n, n_inputs) -> (n_members, n, n_outputs): one product."""
        n_members, n_inputs, n_outputs = self.weight.shape
        product = x @ self.weight.transpose(0, 1).reshape(n_inputs, n_members * n_outputs)
        return product.view(-1, n_members, n_outputs).transpose(0, 1)


class StackedNetwork(nn.Module):
    """What the networks of this module share: members in one tensor, a description, the mean as output."""

    output: StackedLinear
    """The last layer."""

    def __init__(self, n_inputs: int, n_outputs: int, n_members: int):
        super().__init__()
        for name, value in (("n_inputs", n_inputs), ("n_outputs", n_outputs), ("n_members", n_members)):
            if int(value) != value or value < 1:
                raise ValueError(f"{name} must be a positive integer; got {value!r}")
        self.n_inputs = int(n_inputs)
        self.n_outputs = int(n_outputs)
        self.n_members = int(n_members)

    def input_layers(self) -> list[StackedLinear]:
        """The layers that see the inputs."""
        raise NotImplementedError

    def from_input_layers(self, *values: Tensor) -> Tensor:
        """Logits (n_members, n, n_outputs) from the values of the input layers, each (n_members, n, width)."""
        raise NotImplementedError

    def output_layers(self) -> list[StackedLinear]:
        """The layers that the output is the sum of."""
        return [self.output]

    def architecture(self) -> dict:
        """Keyword arguments of the class, besides numbers of inputs, outputs and members, that build it again."""
        raise NotImplementedError

    def restart(self, seed=None) -> None:
        """Draw all weights anew. ``seed``: int, torch.Generator, or None for one from the operating system."""
        generator = make_generator(seed)
        for module in self.modules():
            if isinstance(module, StackedLinear):
                module.draw(generator)

    def logits(self, x: Tensor) -> Tensor:
        """Logits where each member has inputs of its own: (n_members, n, n_inputs) -> (n_members, n, n_outputs)."""
        return self.from_input_layers(*(layer(x) for layer in self.input_layers()))

    def member_logits(self, x: Tensor, changes: Tensor | None = None, factor: Tensor | float = 0.0) -> Tensor:
        """Logits of each member: (n, n_inputs) -> (n_members, n, n_outputs).

        Parameters
        ----------
        x : tensor, shape (n, n_inputs)
        changes : tensor, shape (n, n_inputs), optional
            The inputs are ``x + factor * changes``. The gradient by the factor needs none by the inputs.
        factor : tensor, shape ()
        """
        values = [layer.of_shared(x) + layer.bias for layer in self.input_layers()]
        if changes is not None:
            moved = (layer.of_shared(changes) for layer in self.input_layers())
            values = [value + factor * change for value, change in zip(values, moved, strict=True)]
        return self.from_input_layers(*values)

    def forward(self, x: Tensor) -> Tensor:
        """Mean logits of the members: (n, n_inputs) -> (n, n_outputs)."""
        return self.member_logits(x).mean(dim=0)

    def description(self) -> dict:
        """What ``network_from_description`` needs to build this architecture again; plain JSON types, no weights."""
        return {
            "kind": type(self).__name__,
            "n_inputs": self.n_inputs,
            "n_outputs": self.n_outputs,
            "n_members": self.n_members,
            **self.architecture(),
        }


class FeedForward(StackedNetwork):
    r"""Multilayer perceptrons, optionally beside a linear map: :math:`x L + \mathrm{MLP}(x)`.

    Parameters
    ----------
    n_inputs : int
        Number of descriptors.
    n_outputs : int
        1 for two states (log-odds of the last one), else the number of states.
    hidden : sequence of int
        Widths of the hidden layers; empty for a linear-logistic model.
    activation : str
        One of ``ACTIVATIONS``.
    linear_skip : bool
        Add a linear map of the inputs. What few shots can determine first is a linear-logistic model.
    n_members : int
        Independent networks evaluated at once.
    seed : int, torch.Generator or None
        Source of the initial weights.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int = 1,
        hidden: Sequence[int] = (32, 32),
        activation: str = "tanh",
        linear_skip: bool = False,
        n_members: int = 1,
        seed=None,
    ):
        super().__init__(n_inputs, n_outputs, n_members)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}; got {activation!r}")
        self.hidden = tuple(int(width) for width in hidden)
        self.activation = activation
        self.linear_skip = bool(linear_skip)
        widths = (self.n_inputs, *self.hidden)
        self.layers = nn.ModuleList(StackedLinear(n_members, a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.output = StackedLinear(n_members, widths[-1], n_outputs, INITIAL_OUTPUT, OUTPUT_PRIOR)
        self.skip: StackedLinear | None = None
        if self.linear_skip:
            self.skip = StackedLinear(n_members, self.n_inputs, n_outputs, INITIAL_OUTPUT, OUTPUT_PRIOR)
        self.restart(seed)

    def input_layers(self) -> list[StackedLinear]:
        first = cast(StackedLinear, self.layers[0]) if len(self.layers) else self.output
        return [first] if self.skip is None else [first, self.skip]

    def output_layers(self) -> list[StackedLinear]:
        return [self.output] if self.skip is None else [self.output, self.skip]

    def from_input_layers(self, *values: Tensor) -> Tensor:
        h, *skipped = values
        activation = ACTIVATIONS[self.activation]
        for layer in [*self.layers[1:], self.output] if len(self.layers) else ():
            h = layer(activation(h))
        return h + skipped[0] if skipped else h

    def architecture(self) -> dict:
        return {"hidden": list(self.hidden), "activation": self.activation, "linear_skip": self.linear_skip}


class SelfNormalizing(FeedForward):
    """Multilayer perceptrons of scaled exponential linear units, initialised so that activations keep their variance.

    Klambauer et al., Self-Normalizing Neural Networks, NeurIPS 2017, arXiv:1706.02515: LeCun-normal weights (variance
    1 / n_inputs) and zero biases. Parameters as in :class:`FeedForward`.
    """

    def __init__(self, n_inputs, n_outputs=1, hidden: Sequence[int] = (32, 32, 32), n_members: int = 1, seed=None):
        super().__init__(n_inputs, n_outputs, hidden, activation="selu", n_members=n_members, seed=seed)

    def architecture(self) -> dict:
        return {"hidden": list(self.hidden)}


class Residual(StackedNetwork):
    r"""Residual networks: :math:`h \leftarrow h + W_2\,\sigma(W_1 \sigma(h))`, between a linear map in and one out.

    He et al., Identity Mappings in Deep Residual Networks, ECCV 2016, arXiv:1603.05027. Each block starts close to the
    identity, so that depth costs nothing at first.

    Parameters
    ----------
    width, n_blocks : int
        Width of the residual stream and number of blocks. Other parameters as in :class:`FeedForward`.
    """

    def __init__(
        self,
        n_inputs,
        n_outputs=1,
        width: int = 32,
        n_blocks: int = 2,
        activation="silu",
        n_members: int = 1,
        seed=None,
    ):
        super().__init__(n_inputs, n_outputs, n_members)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}; got {activation!r}")
        self.width = int(width)
        self.n_blocks = int(n_blocks)
        self.activation = activation
        self.input = StackedLinear(n_members, self.n_inputs, self.width)
        self.first = nn.ModuleList(StackedLinear(n_members, self.width, self.width) for _ in range(self.n_blocks))
        self.second = nn.ModuleList(
            StackedLinear(n_members, self.width, self.width, initial_gain=0.1) for _ in range(self.n_blocks)
        )
        self.output = StackedLinear(n_members, self.width, n_outputs, INITIAL_OUTPUT, OUTPUT_PRIOR)
        self.restart(seed)

    def input_layers(self) -> list[StackedLinear]:
        return [self.input]

    def from_input_layers(self, *values: Tensor) -> Tensor:
        (h,) = values
        activation = ACTIVATIONS[self.activation]
        for first, second in zip(self.first, self.second, strict=True):
            h = h + second(activation(first(activation(h))))
        return self.output(activation(h))

    def architecture(self) -> dict:
        return {"width": self.width, "n_blocks": self.n_blocks, "activation": self.activation}


class Ensemble(nn.Module):
    """Any torch modules (n, d) -> (n, n_outputs) as one ensemble, evaluated one after the other.

    The networks above are faster as stacks (``n_members``); this is for modules of one's own.
    """

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        if not members:
            raise ValueError("Ensemble needs at least one member")
        self.members = nn.ModuleList(members)
        self.n_members = len(members)

    def member_logits(self, x: Tensor) -> Tensor:
        """Logits of each member: (n, d) -> (n_members, n, n_outputs)."""
        return torch.stack([member(x) for member in self.members])

    def forward(self, x: Tensor) -> Tensor:
        """Mean logits of the members: (n, d) -> (n, n_outputs)."""
        return self.member_logits(x).mean(dim=0)


NETWORKS: dict[str, type[nn.Module]] = {cls.__name__: cls for cls in (FeedForward, SelfNormalizing, Residual)}
"""Classes that `network_from_description` may build; other parts of the package add theirs with `register_network`."""


def register_network(cls: type[nn.Module]) -> type[nn.Module]:
    """Decorator for a network class that checkpoints can rebuild. It must be registered where the file is read, too.

    The class has ``description()``, which gives plain JSON types with the name of the class as "kind". The class method
    ``rebuild(**rest, seed)``, or else the constructor, makes a module of the same architecture; its state is loaded
    afterwards.
    """
    NETWORKS[cls.__name__] = cls
    return cls


class DescribedNetwork(Protocol):
    """A network that can be built again from its description."""

    def description(self) -> dict: ...


def is_of_this_package(network: nn.Module) -> TypeGuard[DescribedNetwork]:
    """Whether a network can be built again from its description: its class is one of ours.

    A class of another author with the name of one of ours is not, nor is a subclass of ours: it may compute anything.
    """
    return NETWORKS.get(type(network).__name__) is type(network)


def default_network(n_inputs: int, n_states: int = 2, seed=None) -> FeedForward:
    """The network that is used where none is asked for; its size does not depend on the number of shots."""
    return FeedForward(
        n_inputs,
        n_outputs=1 if n_states == 2 else n_states,
        hidden=(24, 24),
        activation="tanh",
        n_members=5,
        seed=seed,
    )


def member_logits(network: nn.Module, x: Tensor, changes: Tensor | None = None, factor: Tensor | float = 0.0) -> Tensor:
    """Logits of each member of any network: (n, d) -> (n_members, n, n_outputs); one member where it is no ensemble.

    Further parameters as in :meth:`StackedNetwork.member_logits`.
    """
    if isinstance(network, StackedNetwork):
        return network.member_logits(x, changes, factor)
    x = x if changes is None else x + factor * changes
    return network.member_logits(x) if isinstance(network, Ensemble) else network(x)[None]


def log_prior(network: nn.Module) -> Tensor:
    r"""Logarithm of a Gaussian prior of the weights (up to a constant), summed over the members; biases are free.

    Standard deviation of a weight: ``prior_gain / sqrt(fan_in)`` in the networks of this package, ``1 / sqrt(fan_in)``
    for the matrices of other modules. Under it networks of any width are functions of similar smoothness (R. M. Neal,
    Bayesian Learning for Neural Networks, Springer 1996, doi:10.1007/978-1-4612-0745-0), so one setting fits all.
    """
    total = torch.zeros(())
    for module in network.modules():
        if isinstance(module, StackedLinear):
            precision = module.weight.shape[1] / module.prior_gain**2
            total = total - 0.5 * precision * module.weight.square().sum()
        else:
            for parameter in module.parameters(recurse=False):
                if parameter.ndim >= 2 and parameter.requires_grad:
                    total = total - 0.5 * parameter[0].numel() * parameter.square().sum()
    return total


def network_description(network: nn.Module) -> dict:
    """Architecture as plain JSON types; ``{"kind": "custom", ...}`` for a module that is not one of this package."""
    if is_of_this_package(network):
        return network.description()
    return {"kind": "custom", "class": type(network).__name__}


def network_from_description(description: dict) -> nn.Module:
    """Build an architecture from its description, without executing anything that comes from a file.

    The weights are arbitrary; load a state afterwards.

    Raises
    ------
    ValueError
        For a custom network, or an unknown kind.
    """
    arguments = dict(description)
    kind = arguments.pop("kind", None)
    if kind == "custom":
        raise ValueError(
            f"the network is a torch module of its author's own ({description.get('class')!r}) and cannot be rebuilt "
            "from a file: pass such a module as `network`"
        )
    if kind not in NETWORKS:
        raise ValueError(
            f"unknown kind of network {kind!r}; known are {sorted(NETWORKS)}. A subclass of one of these, of your own, has "
            "to be given as `network`"
        )
    build = getattr(NETWORKS[kind], "rebuild", NETWORKS[kind])
    return build(**arguments, seed=0)
