"""Property checks: what a group, an action, a network, a canonicalizer and an adapted model have to satisfy.

They are used by the tests of this library and are meant for yours. Each raises `AssertionError` naming the
law that failed, the element on which it failed and by how much; NaN fails, and so does an input on which the
check would say nothing. Laws that speak of several kinds find them in registries, so that a kind of one's own
is checked once it has an example (`register_example`) and a mark (`register_mark`).

Example:
    >>> import upright
    >>> from upright.testing import assert_action, assert_group
    >>> assert_group(upright.Dihedral(4))
    >>> assert_action(upright.Dihedral(4), upright.Image)
"""

from .actions import assert_action as assert_action
from .adapters import assert_adapted as assert_adapted
from .examples import EXAMPLES as EXAMPLES
from .examples import example as example
from .examples import register_example as register_example
from .frames import MARKS as MARKS
from .frames import Mark as Mark
from .frames import assert_consistent as assert_consistent
from .frames import register_mark as register_mark
from .groups import assert_group as assert_group
from .models import assert_canonical as assert_canonical
from .models import assert_equivariant as assert_equivariant
from .models import redraw_weights as redraw_weights
from .saving import assert_round_trip as assert_round_trip
from .space import ARROWS as ARROWS
from .space import SPACE_MARKS as SPACE_MARKS
from .space import SpaceMark as SpaceMark
from .space import register_arrows as register_arrows
from .space import register_space_mark as register_space_mark
from .tolerances import TOLERANCES as TOLERANCES
from .tolerances import tolerance as tolerance
