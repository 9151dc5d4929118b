"""The families of operations: a line for each. What a family is, operation.pxd says."""

from cydrop._core.concrete_op cimport concrete_doors
from cydrop._core.dense_op cimport dense_doors
from cydrop._core.embedding_op cimport codes_doors, numbers_doors
from cydrop._core.map_op cimport map_doors
from cydrop._core.mask_op cimport mask_doors
from cydrop._core.member_op cimport member_dense_doors, member_scale_doors
from cydrop._core.noise_op cimport noise_doors
from cydrop._core.norm_op cimport norm_doors
from cydrop._core.operation cimport Doors
from cydrop._core.parametric_op cimport parametric_doors
from cydrop._core.quantized_op cimport quantized_doors
from cydrop._core.residual_op cimport fork_doors, join_doors

cdef enum:
    MOST_FAMILIES = 16


cdef inline void register(dict found, Doors* doors, str family, Doors own, dict variants):
    doors[len(found)] = own
    found[family] = len(found), variants


cdef inline dict families(Doors* doors):
    """Fills in the doors: {name in a plan: (their place, the family's variants)}."""
    from cydrop._core import activations, dense, noise, norms
    cdef dict found = {}
    register(found, doors, "dense", dense_doors(), {"": 0})
    register(found, doors, "map", map_doors(), {"": 0})
    register(found, doors, "noise", noise_doors(), noise.KINDS)
    register(found, doors, "norm", norm_doors(), norms.KINDS)
    register(found, doors, "parametric", parametric_doors(), activations.PARAMETRIC_KINDS)
    register(found, doors, "concrete", concrete_doors(), {"": 0})
    register(found, doors, "fork", fork_doors(), {"": 0})
    register(found, doors, "join", join_doors(), {"": 0})
    register(found, doors, "numbers", numbers_doors(), dense.NUMBER_KINDS)
    register(found, doors, "codes", codes_doors(), {"": 0})
    register(found, doors, "masks", mask_doors(), {"": 0})
    register(found, doors, "member_scale", member_scale_doors(), {"": 0})
    register(found, doors, "member_dense", member_dense_doors(), {"": 0})
    register(found, doors, "quantized", quantized_doors(), {"": 0})
    return found
