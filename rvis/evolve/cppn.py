"""Genomes that are graphs: compositional pattern-producing networks that grow."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from rvis import struct
from rvis.evolve.direct import polynomial
from rvis.types import Array

KINDS = ("sine", "sigmoid", "gaussian", "linear")
"""The functions of nodes, numbered as in a genome; all have values in [−1, 1]."""

INPUTS = 4
"""x and y from −1 to 1 between the centres of the outermost pixels, distance from the middle, 1."""

_LARGEST = 10.0
"""Weights lie in ±10."""


@struct.dataclass
class Graph:
    """An acyclic network of at most N nodes, in arrays of fixed shape.

    The first four nodes are the inputs, the next the outputs, the rest hidden ones.

    Attributes:
      kinds: (N,) int32, a number of `KINDS`; those of inputs mean nothing.
      alive: (N,) whether the node exists; always true of inputs and outputs.
      linked: (N, N) whether there is a connection from the row's node to the column's.
      weights: (N, N) its weight.
    """

    kinds: Array
    alive: Array
    linked: Array
    weights: Array


@struct.dataclass
class CPPN:
    """Networks that draw a picture point by point; they gain and lose nodes and connections.

    A picture of one channel is the magnitude of the output; one of three has hue, lightness and
    saturation for outputs. As in the reference's code, graphs are not crossed: a child has one
    parent.

    Attributes:
      shape: (H, W, C) of the picture, C = 1 or 3.
      hidden: the most hidden nodes that a graph can have.
      add_connection: how often a child gains a connection that closes no cycle.
      drop_connection: how often it loses one.
      change_weights: how often its weights change.
      add_node: how often a node with the connection's weight on both sides is put into one.
      drop_node: how often a hidden node is lost with its connections.
      mutation: the share of weights, where they change, and always of functions, that do.
      eta_mutation: the distribution index of the weights' polynomial mutation.

    Reference: Stanley 2007, CPPNs; Nguyen et al. 2014, whose rates and functions these are.
    """

    shape: tuple[int, int, int] = struct.static()
    hidden: int = struct.static(default=20)
    add_connection: Array | float = 0.5
    drop_connection: Array | float = 0.3
    change_weights: Array | float = 0.5
    add_node: Array | float = 0.5
    drop_node: Array | float = 0.2
    mutation: Array | float = 0.1
    eta_mutation: Array | float = 15.0

    @property
    def nodes(self) -> int:
        """How many nodes there is room for."""
        return INPUTS + self.shape[2] + self.hidden

    def init(self, key: Array) -> Graph:
        """A genome: every input joined to every output at random weights, nothing hidden."""
        draws = _Draws(key, self.nodes**2 + self.nodes)
        source, target = self._roles()
        alive = jnp.arange(self.nodes, dtype=jnp.int32) < INPUTS + self.shape[2]
        return Graph(
            _some_kind(draws(self.nodes)),
            alive,
            (~target & alive)[:, None] & (~source & alive)[None],
            _some_weight(draws(self.nodes, self.nodes)),
        )

    def _roles(self) -> tuple[Array, Array]:
        """(N,) whether a node can begin a connection, and whether it can end one."""
        number = jnp.arange(self.nodes, dtype=jnp.int32)
        outputs = (number >= INPUTS) & (number < INPUTS + self.shape[2])
        return ~outputs, number >= INPUTS

    def cross(self, key: Array, one: Graph, other: Graph) -> tuple[Graph, Graph]:
        """Both parents as they are."""
        del key
        return one, other

    def mutate(self, key: Array, genome: Graph) -> Graph:
        """The genome with its weights, functions and structure changed at the rates given."""
        n = self.nodes
        draws = _Draws(key, 4 * n**2 + 5 * n + 7)
        graph = self._changed(draws, genome)
        graph = self._linked(draws, graph)
        graph = self._unlinked(draws, graph)
        graph = self._grown(draws, graph)
        return self._shrunk(draws, graph)

    def _changed(self, draws: _Draws, graph: Graph) -> Graph:
        n = self.nodes
        changed = (draws(n, n) < self.mutation) & (draws() < self.change_weights)
        genes = (graph.weights + _LARGEST) / (2 * _LARGEST)
        mutated = polynomial(draws(n, n), genes, self.eta_mutation)
        renewed = draws(n) < self.mutation
        return struct.replace(
            graph,
            weights=jnp.where(changed, _some_weight(mutated), graph.weights),
            kinds=jnp.where(renewed, _some_kind(draws(n)), graph.kinds),
        )

    def _linked(self, draws: _Draws, graph: Graph) -> Graph:
        n = self.nodes
        begins, ends = self._roles()
        a, _ = _one_of(draws(n), begins & graph.alive)
        above = ancestors(graph.linked)[:, a] | (jnp.arange(n, dtype=jnp.int32) == a)
        b, possible = _one_of(draws(n), ends & graph.alive & ~above & ~graph.linked[a])
        possible &= draws() < self.add_connection
        here = possible & _entry(n, a, b)
        return struct.replace(
            graph,
            linked=graph.linked | here,
            weights=jnp.where(here, _some_weight(draws()), graph.weights),
        )

    def _unlinked(self, draws: _Draws, graph: Graph) -> Graph:
        a, b, some = _one_link(draws(self.nodes, self.nodes), graph.linked)
        some &= draws() < self.drop_connection
        lost = some & _entry(self.nodes, a, b)
        return struct.replace(graph, linked=graph.linked & ~lost)

    def _grown(self, draws: _Draws, graph: Graph) -> Graph:
        n = self.nodes
        a, b, some = _one_link(draws(n, n), graph.linked)
        new = lax.argmin(graph.alive, 0, jnp.int32)
        some &= ~graph.alive[new] & (draws() < self.add_node)
        gained = some & (_entry(n, a, new) | _entry(n, new, b))
        renewed = some & (jnp.arange(n, dtype=jnp.int32) == new)
        return Graph(
            jnp.where(renewed, _some_kind(draws()), graph.kinds),
            graph.alive | renewed,
            graph.linked & ~(some & _entry(n, a, b)) | gained,
            jnp.where(gained, graph.weights[a, b], graph.weights),
        )

    def _shrunk(self, draws: _Draws, graph: Graph) -> Graph:
        number = jnp.arange(self.nodes, dtype=jnp.int32)
        gone, some = _one_of(draws(self.nodes), graph.alive & (number >= INPUTS + self.shape[2]))
        some &= draws() < self.drop_node
        kept = ~((number == gone) & some)
        return struct.replace(
            graph, alive=graph.alive & kept, linked=graph.linked & kept[:, None] & kept[None]
        )

    def picture(self, genome: Graph) -> Array:
        """(H, W, C) in [0, 1]."""
        height, width, channels = self.shape
        # A node has more ancestors than any of its own ancestors: their number is an order in which
        # every node comes after those that it reads. Inputs have none and stay first.
        order = jnp.argsort(ancestors(genome.linked).sum(0), stable=True)
        weights = jnp.where(genome.linked, genome.weights, 0)[order][:, order]
        kinds = genome.kinds[order]
        y = jnp.broadcast_to(_line(height)[:, None], (height, width))
        x = jnp.broadcast_to(_line(width), (height, width))
        seen = jnp.stack([x, y, jnp.hypot(x, y), jnp.ones_like(x)]).reshape(INPUTS, -1)
        values = jnp.zeros((self.nodes, height * width), jnp.float32).at[:INPUTS].set(seen)

        def fire(i: Array, values: Array) -> Array:
            return values.at[i].set(_act(kinds[i], weights[:, i] @ values))

        values = lax.fori_loop(INPUTS, self.nodes, fire, values)
        places = jnp.argsort(order)[INPUTS : INPUTS + channels]
        shown = jnp.abs(values[places]).reshape(channels, height, width)
        return shown[0, ..., None] if channels == 1 else _rgb(shown[0], shown[1], shown[2])


def ancestors(linked: Array) -> Array:
    """(N, N) whether there is a way along connections from the row's node to the column's."""
    reach = linked.astype(jnp.float32)
    for _ in range(math.ceil(math.log2(len(linked)))):
        reach = jnp.minimum(reach + reach @ reach, 1)
    return reach > 0


class _Draws:
    """Uniform numbers, all from one call: every call costs compilation time."""

    def __init__(self, key: Array, count: int):
        self.left = jax.random.uniform(key, (count,), jnp.float32)

    def __call__(self, *shape: int) -> Array:
        """The next ones."""
        size = math.prod(shape)
        taken, self.left = self.left[:size], self.left[size:]
        assert len(taken) == size
        return taken.reshape(shape)


def _some_kind(draw: Array) -> Array:
    return (draw * len(KINDS)).astype(jnp.int32)


def _some_weight(draw: Array) -> Array:
    return (2 * draw - 1) * _LARGEST


def _entry(size: int, a: Array, b: Array) -> Array:
    """(size, size), true at row a and column b alone."""
    number = jnp.arange(size, dtype=jnp.int32)
    return (number == a)[:, None] & (number == b)[None]


def _one_of(draw: Array, among: Array) -> tuple[Array, Array]:
    """The place of one true entry, each as likely as the others, and whether there is any."""
    return lax.argmax(jnp.where(among, draw, -1), 0, jnp.int32), among.any()


def _one_link(draw: Array, linked: Array) -> tuple[Array, Array, Array]:
    """The row and column of one connection, and whether there is any."""
    place, some = _one_of(draw.reshape(-1), linked.reshape(-1))
    return *jnp.divmod(place, len(linked)), some


def _line(size: int) -> Array:
    return jnp.linspace(-1, 1, size, dtype=jnp.float32) if size > 1 else jnp.zeros(1, jnp.float32)


def _act(kind: Array, x: Array) -> Array:
    values = (jnp.sin(x), jnp.tanh(x / 2), jnp.exp(-jnp.square(x)), jnp.clip(x, -3, 3) / 3)
    return jnp.select([kind == i for i in range(len(KINDS))], values)


def _rgb(hue: Array, lightness: Array, saturation: Array) -> Array:
    """(H, W, 3) of hue (in turns), lightness and saturation, each (H, W) in [0, 1]."""
    reach = saturation * jnp.minimum(lightness, 1 - lightness)

    def channel(shift: int) -> Array:
        k = (shift + 12 * hue) % 12
        return lightness - reach * jnp.clip(jnp.minimum(k - 3, 9 - k), -1, 1)

    return jnp.clip(jnp.stack([channel(0), channel(8), channel(4)], -1), 0, 1)
