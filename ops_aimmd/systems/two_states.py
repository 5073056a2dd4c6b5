"""OPS networks of ready-made systems with two states."""

import openpathsampling as paths


class TwoStates:
    """A system with two states, in ``states``."""

    def network(self, all_to_all=False) -> paths.TPSNetwork:
        """A fresh OPS network: paths from the first state to the last, or (``all_to_all``) also back."""
        if all_to_all:
            return paths.TPSNetwork.from_states_all_to_all(self.states)
        return paths.TPSNetwork(*self.states)
