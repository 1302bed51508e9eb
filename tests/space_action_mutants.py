"""Broken actions in space, each with one thing wrong, which the public checks must catch.

Each says in its name or its first line what is wrong.
"""

import torch
from torch import Tensor

from upright import (
    E3,
    O3,
    SE3,
    SO3,
    Cloud,
    Element,
    FullOctahedral,
    LabelVolume,
    Octahedral,
    OrientedBoxes3D,
    PseudoVectors,
    Tensors,
    Vectors,
    Volume,
    act,
)


def only(*kinds):
    """Make a mutant of some kinds, right for all others and for the identity."""

    def decorate(f):
        def mutant(g, x):
            if isinstance(x, list):
                return [mutant(g[i], entry) for i, entry in enumerate(x)]
            if not isinstance(x, kinds):
                return act(g, x)
            moved = f(g, x)
            if moved.data.shape != x.data.shape:
                return moved
            still = g.is_identity()
            still = still.view(-1, *[1] * (x.data.ndim - 1)) if still.ndim else still
            return moved.replace(data=torch.where(still, x.data, moved.data))

        mutant.__name__, mutant.__doc__ = f.__name__, f.__doc__
        return mutant

    return decorate


def matrices(g, v: Tensor):
    """Return rotations, with axes to be multiplied with vectors ``(…, 3)``."""
    rotation = g.group.rotation(g).to(v.dtype)
    return rotation.reshape(*g.shape, *[1] * (v.ndim - 1 - len(g.shape)), 3, 3)


def shifts(g, v: Tensor):
    """Return shifts, with the axes of vectors ``(…, 3)``."""
    return g.group.translation(g).to(v.dtype).reshape(*g.shape, *[1] * (v.ndim - 1 - len(g.shape)), 3)


def signs(g, ndim):
    """Return determinants with some axes."""
    sign = g.group.determinant(g)
    return sign.reshape(*g.shape, *[1] * (ndim - len(g.shape)))


@only(Cloud, Vectors, PseudoVectors)
def transposed(g, x):
    """Rows are multiplied by the matrix: turned by its inverse."""
    moved = (x.data[..., None, :3] @ matrices(g, x.data)).squeeze(-2)
    if isinstance(x, Cloud):
        moved = torch.cat([moved + shifts(g, x.data), x.data[..., 3:]], -1)
    if isinstance(x, PseudoVectors):
        moved = moved * signs(g, moved.ndim).to(moved)
    return x.replace(data=moved)


@only(Vectors)
def bias_on_vectors(g, x):
    """Arrows are shifted like positions."""
    return x.replace(data=act(g, x).data + shifts(g, x.data))


@only(Vectors)
def constant_bias(g, x):
    """A constant is added after the turn, as by a linear layer with a bias."""
    return x.replace(data=act(g, x).data + 0.1)


@only(PseudoVectors)
def pseudo_vector_as_vector(g, x):
    """Angular momenta are taken for velocities: an action, of another kind."""
    return x.replace(data=act(g, Vectors(x.data)).data)


@only(Vectors)
def vector_as_pseudo_vector(g, x):
    """Velocities are taken for angular momenta."""
    return x.replace(data=act(g, PseudoVectors(x.data)).data)


@only(Cloud)
def reflection_as_rotation(g, x):
    """A matrix of determinant -1 passes as the rotation that is its negative."""
    return x.replace(data=torch.cat([act(g, PseudoVectors(x.data[..., :3])).data, x.data[..., 3:]], -1))


@only(OrientedBoxes3D)
def axes_that_are_no_rotation(g, x):
    """Where the element reflects, so do the axes of a box: their determinant is -1."""
    third = torch.arange(9) % 3 == 2
    axes = torch.where(third, signs(g, x.data.ndim) * x.data[..., 6:], x.data[..., 6:]).to(x.data.dtype)
    return act(g, x.replace(data=torch.cat([x.data[..., :6], axes], -1)))


@only(OrientedBoxes3D)
def boxes_that_do_not_turn(g, x):
    """Centres move, axes stay."""
    return x.replace(data=torch.cat([act(g, x).data[..., :6], x.data[..., 6:]], -1))


@only(OrientedBoxes3D)
def rows_of_a_box(g, x):
    """The rows of its matrix turn instead of its columns."""
    flipped = x.data[..., 6:].unflatten(-1, (3, 3)).mT.flatten(-2)
    moved = act(g, x.replace(data=torch.cat([x.data[..., :6], flipped], -1))).data
    return x.replace(
        data=torch.cat([moved[..., :6], moved[..., 6:].unflatten(-1, (3, 3)).mT.flatten(-2)], -1)
    )


@only(Tensors)
def turned_once(g, x):
    """``R T``: only one axis of a tensor turns."""
    return x.replace(data=act(g, Vectors(x.data.mT)).data.mT)


@only(Tensors)
def turned_backwards(g, x):
    """``Rᵀ T R``."""
    return act(~g, x)


@only(Tensors)
def transposed_tensor(g, x):
    """``R Tᵀ Rᵀ``: right for symmetric ones."""
    return x.replace(data=act(g, x).data.mT)


@only(Cloud)
def shift_first(g, x):
    """``R (v + t)``."""
    start = torch.cat([x.data[..., :3] + shifts(g, x.data), x.data[..., 3:]], -1)
    moved = act(g, Vectors(start[..., :3])).data
    return x.replace(data=torch.cat([moved, x.data[..., 3:]], -1))


@only(Cloud)
def features_move(g, x):
    """What stays with a point is shifted too."""
    return x.replace(data=act(g, x).data + torch.nn.functional.pad(shifts(g, x.data)[..., :2], (3, 0)))


@only(Volume, LabelVolume)
def axes_in_the_order_of_points(g, x):
    """The axes of a volume are taken for x, y, z: it moves by a conjugate."""
    back = x.data.transpose(-1, -3)
    moved = act(g, x.replace(data=back, spacing=x.spacing[::-1]))
    return moved.replace(data=moved.data.transpose(-1, -3), spacing=moved.spacing[::-1])


@only(Volume, LabelVolume)
def other_way_round(g, x):
    """Voxels are looked up by the map itself."""
    return act(~g, x)


@only(Volume, LabelVolume)
def spacing_left_behind(g, x):
    """The axes of a volume permute and its spacing does not."""
    return act(g, x).replace(spacing=x.spacing)


@only(Volume, LabelVolume)
def spacing_overlooked(g, x):
    """Voxels are taken for cubes."""
    return act(g, x.replace(spacing=(1.0, 1.0, 1.0))).replace(spacing=x.spacing)


@only(Volume, LabelVolume)
def half_a_voxel_off(g, x):
    """Voxels move about the centre of voxel ``n / 2`` instead of the middle."""
    half = 0.5 * torch.tensor(x.spacing[::-1], dtype=torch.float64)
    there = E3().element(translation=half)
    turn = E3().element(g.group.rotation(g), g.group.translation(g))
    about = there.expand(*g.shape) @ turn @ (~there).expand(*g.shape)
    return act(about, x)


@only(Volume)
def shift_in_voxels(g, x):
    """Shifts count voxels."""
    steps = torch.tensor(x.spacing[::-1], dtype=torch.float64)
    return act(E3().element(g.group.rotation(g), g.group.translation(g) * steps), x)


@only(Volume, LabelVolume)
def shift_forgotten(g, x):
    """Volumes turn and are not shifted."""
    return act(O3().element(g.group.rotation(g)), x)


@only(Volume, LabelVolume)
def mirrored_about_another_axis(g, x):
    """A reflection also flips the width: right for rotations."""
    moved = act(g, x)
    flipped = torch.where(signs(g, x.data.ndim) < 0, moved.data.flip(-1), moved.data)
    return moved.replace(data=flipped)


@only(Volume, Cloud, Vectors)
def no_gradient_to_the_pose(g, x):
    """The element is read as a number."""
    return act(Element(g.group, g.value.detach()), x)


@only(Volume, Cloud)
def no_gradient_to_the_data(g, x):
    """What is moved is read as numbers."""
    return act(g, x.replace(data=x.data.detach()))


@only(Volume, Tensors)
def one_element_for_all(g, x):
    """The first element of a batch moves all of it."""
    return act(g[0] if g.shape else g, x)


@only(Cloud, Vectors)
def in_half_precision(g, x):
    """Positions pass through bfloat16, as under autocast."""
    return act(g, x.replace(data=x.data.bfloat16())).replace(data=act(g, x).data.bfloat16().to(x.data.dtype))


@only(Cloud)
def in_place(g, x):
    """The positions that were given are overwritten."""
    x.data.copy_(act(g, x).data)
    return x


ACTIONS = [  # mutant, group on which its laws fail, kind
    (transposed, SO3(), Cloud),
    (transposed, Octahedral(), Vectors),
    (transposed, O3(), PseudoVectors),
    (constant_bias, SO3(), Vectors),
    (turned_backwards, SO3(), Tensors),
    (transposed_tensor, SO3(), Tensors),
    (shift_first, SE3(), Cloud),
    (other_way_round, Octahedral(), Volume),
    (other_way_round, FullOctahedral(), LabelVolume),
    (mirrored_about_another_axis, FullOctahedral(), Volume),
    (no_gradient_to_the_pose, SO3(), Vectors),
    (no_gradient_to_the_pose, E3(), Cloud),
    (no_gradient_to_the_data, SO3(), Cloud),
    (one_element_for_all, Octahedral(), Volume),
    (one_element_for_all, O3(), Tensors),
    (in_half_precision, SO3(), Cloud),
    (in_place, O3(), Cloud),
]

FRAMES = [  # mutant, group on which kinds disagree, though some are actions all the same
    (transposed, SO3()),
    (bias_on_vectors, E3()),
    (pseudo_vector_as_vector, O3()),
    (pseudo_vector_as_vector, FullOctahedral()),
    (vector_as_pseudo_vector, E3()),
    (reflection_as_rotation, FullOctahedral()),
    (axes_that_are_no_rotation, O3()),
    (boxes_that_do_not_turn, Octahedral()),
    (rows_of_a_box, SO3()),
    (turned_once, SO3()),
    (turned_backwards, Octahedral()),
    (transposed_tensor, O3()),
    (shift_first, SE3()),
    (axes_in_the_order_of_points, Octahedral()),
    (axes_in_the_order_of_points, SO3()),
    (other_way_round, FullOctahedral()),
    (other_way_round, SO3()),
    (spacing_left_behind, Octahedral()),
    (spacing_overlooked, SO3()),
    (half_a_voxel_off, SO3()),
    (shift_in_voxels, SE3()),
    (shift_forgotten, E3()),
    (mirrored_about_another_axis, O3()),
]
