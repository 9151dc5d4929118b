"""What Python names and kernels number is said in one table a module of kernels."""

import numpy as np
import pytest

import cydrop as cd
from cydrop import layers
from cydrop._core import activations, losses, optimizers
from cydrop._core.kinds import kind_of


@pytest.mark.parametrize("module", [activations, losses, optimizers], ids=lambda module: module.__name__)
def test_every_kind_has_a_number_of_its_own(module):
    assert [kind_of(module.KINDS, name) for name in module.KINDS] == list(range(len(module.KINDS)))


def test_a_name_that_is_not_known_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"'maxout' is none of the kinds identity, relu, .*, mish"):
        kind_of(activations.KINDS, "maxout")


def test_the_declarations_and_the_kernels_have_the_same_names():
    assert set(activations.KINDS) == {"identity", *layers.ACTIVATIONS}
    assert set(losses.KINDS) == set(cd.losses.KNOWN)
    assert set(optimizers.KINDS) == set(cd.optimizers.KNOWN)


def test_declarations_have_the_numbers_of_the_kernels():
    for module, known in ((losses, cd.losses.KNOWN), (optimizers, cd.optimizers.KNOWN)):
        assert {name: cls.code for name, cls in known.items()} == module.KINDS


@pytest.mark.parametrize("base", [cd.losses.Loss, cd.optimizers.Optimizer])
def test_a_declaration_that_does_not_say_what_it_is_cannot_be_made(base):
    class Unknown(base):
        name = "unknown"

    with pytest.raises(TypeError, match="abstract"):
        Unknown()


@pytest.mark.parametrize("name", cd.losses.KNOWN)
def test_only_losses_of_numbers_need_a_precision_of_the_noise_to_say_how_likely_y_is(name):
    loss, units = cd.losses.KNOWN[name](), 4
    p = np.full((2, 3, units), 0.25)
    y = loss.checked("y", np.zeros(3) if loss.columns(units) == 0 else np.zeros((3, loss.columns(units))), 3, units)
    if loss.has_density:
        assert loss.log_density(p, y).shape == (2, 3)
    elif not loss.needs_precision:
        with pytest.raises(ValueError, match=f"with {name} there is no likelihood of y"):
            loss.log_density(p, y, 2.0)
    else:
        with pytest.raises(ValueError, match=f"with {name} y has a density only where the precision"):
            loss.log_density(p, y)
        assert loss.log_density(p, y, 2.0).shape == (2, 3)
