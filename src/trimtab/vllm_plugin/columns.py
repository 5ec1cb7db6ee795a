"""Which column of a layer's table stands for which neuron; several steerings share one."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from trimtab.errors import ModelError


@dataclass(slots=True)
class Columns:
    """The columns of one table, given out and taken back as steerings come and go.

    Args:
        capacity: how many there are.
        column: by neuron.
        users: slots that use a neuron, by neuron.
    """

    capacity: int
    column: dict[int, int] = field(default_factory=dict)
    users: dict[int, set[int]] = field(default_factory=dict)

    def missing(self, neurons: Iterable[int], replaced: int) -> int:
        """How many columns are too few for these neurons, once a slot's present ones are given back."""
        kept = {neuron for neuron, users in self.users.items() if users - {replaced}}
        return max(0, len(kept | set(neurons)) - self.capacity)

    def take(self, neurons: Iterable[int], slot: int) -> list[int]:
        """A column for each neuron, in order.

        Raises:
            ModelError: more neurons than columns.
        """
        wanted = list(neurons)
        if self.missing(wanted, slot):
            raise ModelError(f"{len(wanted)} neurons do not fit {self.capacity} columns")
        free = iter(sorted(set(range(self.capacity)) - set(self.column.values())))
        for neuron in wanted:
            if neuron not in self.column:
                self.column[neuron] = next(free)
            self.users.setdefault(neuron, set()).add(slot)
        return [self.column[neuron] for neuron in wanted]

    def give_back(self, slot: int) -> None:
        """A slot uses none of them any more; those that nobody uses are free."""
        for neuron in [neuron for neuron, users in self.users.items() if slot in users]:
            self.users[neuron].discard(slot)
            if not self.users[neuron]:
                del self.users[neuron], self.column[neuron]
