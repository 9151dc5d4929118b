"""What Python names and kernels number is said in one table a module of kernels."""

import pytest

import cydrop as cd
from cydrop import layers
from cydrop._core import activations, losses, optimizers
from cydrop._core.kinds import kind_of


@pytest.mark.parametrize("module", [activations, losses, optimizers], ids=lambda module: module.__name__)
def test_every_kind_has_a_number_of_its_own(module):
    assert [kind_of(module.KINDS, name) for name in module.KINDS] == list(range(len(module.KINDS)))


def test_a_name_that_is_not_known_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"'maxout' is none of the kinds identity, relu, .*, softplus"):
        kind_of(activations.KINDS, "maxout")


def test_the_declarations_and_the_kernels_have_the_same_names():
    assert set(activations.KINDS) == {"identity", *layers.ACTIVATIONS}
    assert set(losses.KINDS) == set(cd.losses.KNOWN)
    assert set(optimizers.KINDS) == set(cd.optimizers.KNOWN)
