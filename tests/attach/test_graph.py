"""The graph of a model: which tensors belong to which side, and that looking leaves no trace."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_siamese.attach.graph import (
    graph_of,
    in_order,
    is_functional,
    node_of,
    nodes_between,
    signatures_of,
    split,
    unchanged_layers,
    understood,
)
from tests.support.programs import PROGRAMS, encoder, sides


def test_inputs_of_one_item_belong_to_one_side():
    model, _ = PROGRAMS["ids_and_masks"]()
    assert [side.inputs for side in split(graph_of(model))] == [(0, 2), (1, 3)]
    model, _ = PROGRAMS["dicts_on_each_side"]()
    assert [side.inputs for side in split(graph_of(model))] == [(0, 1), (2, 3)]


def test_four_items_of_one_kind_are_four_sides():
    tower, ends = encoder(), sides(4)
    gaps = [layers.Dot(1)([tower(one), tower(other)]) for one, other in (ends[:2], ends[2:])]
    model = keras.Model(ends, layers.Subtract()(gaps))
    assert [side.inputs for side in split(graph_of(model))] == [(0,), (1,), (2,), (3,)]


def test_a_side_ends_where_it_meets_another():
    model, _ = PROGRAMS["skip_connection"]()
    left, right = split(graph_of(model))
    assert {end.shape[1] for end in left.frontier} == {3, 4}
    assert left.signatures == right.signatures
    unshared = split(graph_of(PROGRAMS["unshared"]()[0]))
    assert unshared[0].signatures != unshared[1].signatures


def test_equal_operations_without_weights_have_one_signature():
    ends = sides()
    outputs = [ops.sum(ops.square(end), axis=axis) for end, axis in zip(ends * 2, (1, 1, 1, 2), strict=True)]
    found = signatures_of(graph_of(keras.Model(ends, outputs)), leaves={0: 0, 1: 0})
    same = [found[id(one)] for one in outputs]
    assert same[0] == same[1] == same[2] != same[3]


def test_nodes_come_after_those_they_need():
    model, _ = PROGRAMS["merged_by_layers"]()
    known = {id(tensor) for tensor in model.inputs}
    for node in nodes_between(model.inputs, model.outputs):
        assert all(id(tensor) in known for tensor in node.input_tensors)
        known |= {id(tensor) for tensor in node.outputs}
    assert {id(tensor) for tensor in model.outputs} <= known


def test_calls_within_leave_no_trace():
    model, _ = PROGRAMS["absolute_difference"]()
    layer, before = model.layers[-1], [len(one._inbound_nodes) for one in model.layers]
    origin = model.inputs[0]._keras_history
    with unchanged_layers(model):
        layer(keras.Input((4,)))
        model.inputs[0]._keras_history = None
    assert [len(one._inbound_nodes) for one in model.layers] == before
    assert model.inputs[0]._keras_history is origin
    assert model.layers[-1].output is model.outputs[0]


def test_a_model_that_joins_sides_is_opened():
    model, x = PROGRAMS["nested_siamese"]()
    names = [type(node.operation).__name__ for node in graph_of(model).nodes]
    assert names.count("Sequential") == 2 and "Functional" not in names
    untraced, x = PROGRAMS["subclass_that_cannot_be_traced"]()
    assert graph_of(untraced, x) is None and graph_of(untraced) is None


def test_arrays_are_put_in_the_order_of_the_inputs():
    ends = [keras.Input((2,), name=name) for name in ("right", "left")]
    model = keras.Model(ends, layers.Dot(1)(ends))
    arrays = {"left": np.zeros((1, 2)), "right": np.ones((1, 2))}
    assert in_order(model, arrays)[0] is arrays["right"]
    assert in_order(model, [1, 2]) == [1, 2]


@pytest.mark.parametrize(("make", "expected"), [(encoder, True), (lambda: keras.Sequential([layers.Dense(1)]), False)])
def test_a_sequential_that_knows_its_input_has_a_graph(make, expected):
    assert is_functional(make()) == expected
    assert node_of(keras.Input((2,))).operation.name.startswith("input") and not is_functional("a string")


def test_a_model_is_described_as_far_as_it_was_understood():
    left, right = keras.Input((4,)), keras.Input((4,))
    met = layers.Concatenate(name="both")([layers.Dense(3, name="one")(left), right])
    model = keras.Model([left, right], layers.Dense(7, name="join")(met))
    assert understood(model) == ("input (None, 4) → one; input (None, 4); they meet in both → join; output (None, 7)")


class CallOfTwoLayers(keras.Model):
    def __init__(self, then):
        super().__init__()
        self.first, self.second, self.then = layers.Dense(3, name="first"), layers.Dense(5, name="second"), then

    def call(self, inputs):
        return self.second(self.then(self.first(inputs)))


def test_a_call_is_described_as_far_as_it_could_be_traced():
    sample = np.zeros((2, 4), "float32")
    assert understood(CallOfTwoLayers(ops.relu), sample).startswith("input (None, 4) → first → ")
    broken = CallOfTwoLayers(lambda x: 1 / 0)
    found = understood(broken, sample)
    assert found == "its call reaches first, and then it cannot be traced (ZeroDivisionError: division by zero)"
    assert not broken.first._inbound_nodes
    assert understood(broken).startswith("nothing, because it is a subclass")


def test_a_call_that_fails_on_arrays_only_is_described_with_its_error():
    def on_symbols_only(x):
        return x if isinstance(x, keras.KerasTensor) else 1 / 0

    found = understood(CallOfTwoLayers(on_symbols_only), np.zeros((2, 4), "float32"))
    assert found.startswith("input (None, 4) → first → ") and "; but its call with two samples raises ZeroDiv" in found
    assert "division by zero" in found


def test_why_a_call_is_not_traced_is_logged(caplog):
    with caplog.at_level("DEBUG", logger="keras_siamese"):
        assert graph_of(CallOfTwoLayers(lambda x: 1 / 0), np.zeros((2, 4), "float32")) is None
    assert "is not traced: its call raised ZeroDivisionError: division by zero" in caplog.text


def test_a_sequential_that_was_built_again_ends_the_graph():
    """It forgets its calls, but its old output still refers to one."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    output = model.outputs[0]
    assert node_of(output) is not None
    output._keras_history.operation._inbound_nodes.clear()
    assert node_of(output) is None
