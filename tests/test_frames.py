"""Who is calling."""

from keras_siamese._frames import callers


class Asker:
    def ask(self, depth):
        return self.within(depth)

    def within(self, depth):
        return find(depth)


class Outer:
    def call(self, asker, depth):
        return asker.ask(depth)


def find(depth):
    return callers(depth)


def test_the_objects_whose_methods_are_running_innermost_first():
    asker, outer = Asker(), Outer()
    assert outer.call(asker, 3) == [asker, asker, outer]
    assert outer.call(asker, 2) == [asker, asker]
    assert outer.call(asker, 0) == []


def test_functions_count_as_frames_and_are_left_out():
    def function(depth):
        return Asker().ask(depth)

    outer = Outer()
    outer.ask = function
    assert [type(one) for one in Outer().call(outer, 4)] == [Asker, Asker, Outer]


def test_more_than_the_stack_holds_is_no_error():
    assert isinstance(find(10_000), list)


def test_without_a_depth_the_whole_stack_is_looked_at():
    asker, outer = Asker(), Outer()
    assert outer.call(asker, None)[:3] == [asker, asker, outer]
    assert outer.call(asker, None) == outer.call(asker, 10_000)
