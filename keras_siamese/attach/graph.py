"""The graph of a model: which tensors depend on one side only, and where the sides meet.

A siamese model has *sides*: two (or three) items that it compares. Each side passes through a tower; a comparator joins
the towers' outputs. The *frontier* of a side is every tensor that depends on this side alone and is used where sides
meet, or is an output.

Contract: `graph_of` returns the flat graph of any Keras model that can be traced: a functional model, or a subclass
whose `call` uses Keras operations. A nested model that receives several sides is opened. `split` finds sides and
frontier in a graph. Nothing is added to the user's layers. Imports Keras only.

    graph = graph_of(model)                    # Graph(inputs, outputs), or None if the model cannot be traced
    sides = split(graph)                       # [Side(inputs=(0,), frontier=[…]), Side(inputs=(1,), frontier=[…])]
"""

import contextlib
import dataclasses
import logging

import keras
from keras import ops, tree

from keras_siamese._files import reason_of

logger = logging.getLogger(__name__)

LONGEST_REASON = 300  # characters of an error of the user's call that are shown


@dataclasses.dataclass
class Graph:
    """Symbolic inputs and outputs of a model, flat.

    Attributes:
        structure: the nested structure of the model's inputs.
        places: which of the model's outputs `outputs` are; None for all of them.
    """

    inputs: list
    outputs: list
    structure: object
    places: list | None = None

    @property
    def nodes(self):
        return nodes_between(self.inputs, self.outputs)


@dataclasses.dataclass
class Side:
    """One of the items that a model compares.

    Attributes:
        inputs: indices of the model's inputs (flat) that belong to this side.
        frontier: the tensors in which this side's tower ends.
        signatures: of each tensor in `frontier`: equal where the same operations with the same weights compute it.
    """

    inputs: tuple
    frontier: list
    signatures: tuple


def node_of(tensor):
    """The node (call of an operation) that computed the symbolic `tensor`, or None for an entry of the graph, and for
    one of a `Sequential` that was built again since, which forgets its calls.
    """
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return None
    calls = history.operation._inbound_nodes
    return calls[history.node_index] if history.node_index < len(calls) else None


def nodes_between(inputs, outputs):
    """The nodes that compute `outputs` from `inputs`, each after the nodes whose results it uses."""
    known = {id(tensor) for tensor in inputs}
    order, seen = [], set()
    waiting = [(node_of(tensor), False) for tensor in outputs if id(tensor) not in known]
    while waiting:
        node, is_done = waiting.pop()
        if is_done:
            order.append(node)
        elif node is not None and id(node) not in seen:
            seen.add(id(node))
            waiting.append((node, True))
            waiting += [(node_of(tensor), False) for tensor in node.input_tensors if id(tensor) not in known]
    return order


@contextlib.contextmanager
def unchanged_layers(*models):
    """Remove the calls that were recorded on the layers of `models` within the block.

    Keras appends a node to each layer that is called on symbolic tensors, and `layer.output` is an error if there are
    several.
    """
    layers = {id(layer): layer for model in models for layer in model._flatten_layers()}.values()
    before = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in layers]
    tensors = [tensor for layer in layers for node in layer._inbound_nodes for tensor in node.outputs]
    origins = [(tensor, tensor._keras_history) for tensor in tensors]
    try:
        yield
    finally:
        for layer, inbound, outbound in before:
            del layer._inbound_nodes[inbound:]
            del layer._outbound_nodes[outbound:]
        for tensor, origin in origins:
            tensor._keras_history = origin


def graph_of(model, structure=None):
    """The flat `Graph` of `model`, or None if it cannot be traced.

    Args:
        model: a Keras model or layer.
        structure: for a subclassed model, one batch as `model` takes it, or symbolic inputs.
    """
    if is_functional(model):
        graph = Graph(model.inputs, model.outputs, inputs_of(model))
        found = sides_of(graph, [(index,) for index in range(len(graph.inputs))])
        if not any(isinstance(node.operation, keras.Model) and len(reached(node, found)) > 1 for node in graph.nodes):
            return graph
        structure = inputs_of(model)
    elif structure is None:
        return None
    try:
        return traced(model, structure)
    except Exception as error:  # a call that does not work on symbolic tensors may raise anything
        logger.debug("%r is not traced: its call raised %s", model.name, reason_of(error))
        return None


def traced(model, structure):
    """The `Graph` of a call of `model` with symbolic inputs of the shapes in `structure`; None if it ends in none."""
    symbolic = tree.map_structure(
        lambda one: keras.Input(batch_shape=(None, *one.shape[1:]), dtype=one.dtype), structure
    )
    inputs = tree.flatten(symbolic)
    outputs = opened_call(model, [symbolic], {}, {id(one): frozenset([i]) for i, one in enumerate(inputs)})
    outputs = [one for one in tree.flatten(outputs) if isinstance(one, keras.KerasTensor)]
    return Graph(inputs, outputs, symbolic) if outputs else None


def understood(model, structure=None):
    """What is known of a model that cannot be dissected, in words: its graph, or how far its call could be traced."""
    if is_functional(model):
        return described(Graph(model.inputs, model.outputs, inputs_of(model)))
    if structure is None:
        return "nothing, because it is a subclass, whose call is traced with a few rows of its input: `sample=`"
    layers = list(model._flatten_layers(include_self=False))
    with unchanged_layers(model):
        before = [len(layer._inbound_nodes) for layer in layers]
        try:
            graph = traced(model, structure)
            found = "its call returns no tensor" if graph is None else described(graph)
        except Exception as error:  # of the user's call
            reason = reason_of(error)[:LONGEST_REASON]
            reached = [one.name for one, count in zip(layers, before, strict=True) if len(one._inbound_nodes) > count]
            return f"its call reaches {', '.join(reached) or 'no layer'}, and then it cannot be traced ({reason})"
    if any(isinstance(one, keras.KerasTensor) for one in tree.flatten(structure)):
        return found
    try:
        model(tree.map_structure(lambda one: ops.convert_to_tensor(one[:2]), structure))
    except Exception as error:  # of the user's call
        return f"{found}; but its call with two samples raises {reason_of(error)[:LONGEST_REASON]}"
    return found


def described(graph):
    """The layers of each input of a `graph` up to where inputs meet, and its outputs, in words."""
    found, parts = sides_of(graph, [(index,) for index in range(len(graph.inputs))]), []
    for index, tensor in enumerate(graph.inputs):
        own = [node.operation.name for node in graph.nodes if reached(node, found) == {index}]
        parts.append(" → ".join([f"input {tuple(tensor.shape)}", *own]))
    met = [node.operation.name for node in graph.nodes if len(reached(node, found)) > 1]
    outputs = ", ".join(str(tuple(one.shape)) for one in graph.outputs)
    return "; ".join([*parts, *([f"they meet in {' → '.join(met)}"] if met else []), f"output {outputs}"])


def is_functional(model):
    """Whether `model` has a graph: it is a functional model, or a Sequential that knows its input."""
    if not isinstance(model, keras.Model):
        return False
    try:
        return bool(model.inputs) and bool(model.outputs)
    except (AttributeError, ValueError):
        return False


def inputs_of(model):
    """The symbolic inputs of a functional model in their nested structure; a Sequential has one."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def input_names(model):
    """The names of the model's inputs in their order; [] for a model without a graph."""
    return [node_of(one).operation.name for one in model.inputs] if is_functional(model) else []


def in_order(model, x):
    """The arrays of `x`, which `model` takes, in the order of its inputs; a dict may name them."""
    names = input_names(model)
    return [x[name] for name in names] if isinstance(x, dict) and set(names) == set(x) else tree.flatten(x)


def shows_parts(model):
    """Whether `model` shows its encoder and its comparator itself, as `SiameseWrapper` does."""
    return all(hasattr(model, name) for name in ("encoder", "embed", "compare", "output_kind"))


def opened_call(operation, args, kwargs, sides):
    """Call `operation` on symbolic `args`; the models in it that receive several sides are called part by part.

    Args:
        sides: the sides on which each symbolic tensor depends, by the tensor's id. Results are added.
    """
    if is_functional(operation):
        values = tree.flatten(args[0])
        results = replay(operation.inputs, operation.outputs, values, sides)
        return (
            results[0] if isinstance(operation, keras.Sequential) else tree.pack_sequence_as(operation.output, results)
        )
    entries = [one for one in tree.flatten((args, kwargs)) if isinstance(one, keras.KerasTensor)]
    if shows_parts(operation):
        results = operation.compare(*[operation.encoder(one) for one in args[0]])
    else:
        results = operation.call(*args, **kwargs)
    flat = [one for one in tree.flatten(results) if isinstance(one, keras.KerasTensor)]
    renewed = dict(zip(map(id, flat), replay(entries, flat, entries, sides), strict=True))
    return tree.map_structure(lambda one: renewed.get(id(one), one), results)


def replay(inputs, outputs, values, sides):
    """Compute the symbolic `outputs` again, from `values` in place of `inputs`, and open what must be opened."""
    known = dict(zip(map(id, inputs), values, strict=True))
    for node in nodes_between(inputs, outputs):
        if node.is_input and not node.input_tensors:
            continue
        args, kwargs = node.arguments.fill_in(known)
        reached = frozenset().union(*(sides.get(id(one), frozenset()) for one in tree.flatten((args, kwargs))))
        results = None
        if len(reached) > 1 and isinstance(node.operation, keras.Model):
            results = opened_call(node.operation, args, kwargs, sides)
        else:
            results = node.operation(*args, **kwargs)
        for old, new in zip(node.outputs, tree.flatten(results), strict=True):
            known[id(old)] = new
            sides.setdefault(id(new), reached)
    return [known[id(tensor)] for tensor in outputs]


def split(graph, sides=None):
    """The `Side`s of a `graph` with at least two inputs, or None if no tensor depends on one side alone.

    Args:
        sides: indices of the inputs of each side, if they are known.
    """
    singles = [(index,) for index in range(len(graph.inputs))]
    if sides is None:
        sides = top_level(graph.structure) or grouped(graph, singles)
    leaves = {index: place for side in sides for place, index in enumerate(side)}
    return ended(graph, sides, sides_of(graph, sides), signatures_of(graph, leaves))


def split_on_axis(graph, count, depends):
    """The `Side`s of a `graph` whose only input holds `count` items, or None.

    Args:
        depends: the items on which each tensor depends, by the tensor's id.
    """
    entries = {}
    for node in graph.nodes:
        own = reached(node, depends)
        for tensor in node.outputs:
            if len(depends.get(id(tensor), ())) == 1 and len(own) > 1:
                entries[id(tensor)] = ("item", tuple(tensor.shape))
    return ended(graph, [(0,)] * count, depends, signatures_of(graph, entries=entries))


def ended(graph, sides, depends, signatures):
    """The `Side`s, each with the tensors of the `graph` in which its tower ends; None if one has no such tensor.

    Outputs of one side alone, such as those of an auxiliary classifier, are removed from the `graph` if others compare.
    """
    places = [place for place, one in enumerate(graph.outputs) if len(depends.get(id(one), ())) > 1]
    if places:
        graph.outputs, graph.places = [graph.outputs[place] for place in places], places
    ends = [[] for _ in sides]
    used = [(tensor, reached(node, depends)) for node in graph.nodes for tensor in node.input_tensors]
    for tensor, together in [*used, *((tensor, None) for tensor in graph.outputs)]:
        own = depends.get(id(tensor), frozenset())
        if len(own) == 1 and together != own and all(tensor is not one for one in ends[min(own)]):
            ends[min(own)].append(tensor)
    if not all(ends):
        return None
    return [
        Side(tuple(inputs), end, tuple(signatures[id(tensor)] for tensor in end))
        for inputs, end in zip(sides, ends, strict=True)
    ]


def top_level(structure):
    """Sides that the structure of the inputs shows: two or three parts of several inputs each. None without them."""
    numbered = tree.pack_sequence_as(structure, list(range(len(tree.flatten(structure)))))
    parts = list(numbered.values()) if isinstance(numbered, dict) else numbered
    if not isinstance(parts, (list, tuple)) or len(parts) not in (2, 3):
        return None
    sides = [tuple(tree.flatten(part)) for part in parts]
    return sides if len({len(side) for side in sides}) == 1 and len(sides[0]) > 1 else None


def reached(node, sides):
    return frozenset().union(*(sides.get(id(one), frozenset()) for one in node.input_tensors))


def sides_of(graph, sides):
    """The sides on which each tensor of the `graph` depends, by the tensor's id."""
    found = {id(graph.inputs[index]): frozenset([number]) for number, side in enumerate(sides) for index in side}
    for node in graph.nodes:
        together = reached(node, found)
        for tensor in node.outputs:
            found.setdefault(id(tensor), together)
    return found


def grouped(graph, singles):
    """The inputs of each side, where a side has several: inputs that the same layers join, once for each side.

    Token ids and their mask are joined by the encoder, which is called again with the other side's ids and mask. The
    comparator joins inputs only once, or joins one of them (an anchor) with several.
    """
    if len(singles) < 4:
        return singles
    found, signatures, joined = sides_of(graph, singles), signatures_of(graph), {}
    for node in graph.nodes:
        together = reached(node, found)
        towers = [signatures[id(one)] for one in node.input_tensors if not is_input(one)]
        if len(together) > 1 and len(set(towers)) == len(towers):  # no two items of one kind
            for tensor in node.outputs:
                joined.setdefault(signatures[id(tensor)], set()).add(together)
    for groups in joined.values():
        if len(groups) > 1 and sorted(index for group in groups for index in group) == list(range(len(singles))):
            return sorted(tuple(sorted(group)) for group in groups)
    return singles


def is_input(tensor):
    node = node_of(tensor)
    return node is None or not node.input_tensors


def signatures_of(graph, leaves=None, entries=()):
    """What computes each tensor of the `graph`, by the tensor's id: equal for equal operations and weights.

    Args:
        leaves: what stands for the input of each index; by default its shape and dtype.
        entries: signatures of tensors at which towers begin, by the tensor's id.
    """
    found = dict(entries)
    for index, tensor in enumerate(graph.inputs):
        found[id(tensor)] = ("input", tuple(tensor.shape), tensor.dtype) if leaves is None else ("input", leaves[index])
    interned = {}
    for node in graph.nodes:
        arguments = tuple(
            found.get(id(one), repr(one)) if isinstance(one, keras.KerasTensor) else repr(one)
            for one in tree.flatten((node.arguments.args, node.arguments.kwargs))
        )
        for place, tensor in enumerate(node.outputs):
            key = (identity_of(node.operation), arguments, place)
            found.setdefault(id(tensor), interned.setdefault(key, len(interned)))  # a number: nested tuples would grow
    return found


def identity_of(operation):
    """Equal for operations that compute the same: the object where it has weights, its class and options otherwise."""
    if getattr(operation, "variables", None):
        return id(operation)
    try:
        config = operation.get_config()
    except Exception:  # a layer from elsewhere may not support it
        return id(operation)
    return type(operation).__qualname__, repr(sorted((key, value) for key, value in config.items() if key != "name"))
