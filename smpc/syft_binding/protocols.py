"""`protocol="semi2k"` makes semi2k tensors; what is not for their layers is refused."""

import functools

import syft
from syft.generic.frameworks.hook import hook_args

from smpc import compat
from smpc.semi2k.tensor import MIXED_PROTOCOLS, Semi2kTensor

AdditiveSharingTensor = syft.AdditiveSharingTensor


def install():
    """Make the changes."""
    hook_args.default_register_tensor(Semi2kTensor)
    make_semi2k_tensors()
    tell_what_one_is()
    refuse_what_is_not_overridden()
    refuse_other_protocols()


def make_semi2k_tensors():
    """`AdditiveSharingTensor(protocol="semi2k")` makes the subclass: `.share()` names the class."""

    def new(cls, *args, protocol=None, **kwargs):
        semi2k = cls is AdditiveSharingTensor and protocol == "semi2k"
        return object.__new__(Semi2kTensor if semi2k else cls)

    AdditiveSharingTensor.__new__ = new


def tell_what_one_is():
    """How large a value may be is promised in numbers, and a semi2k tensor has integers: what a
    number is in these, it learns when it is shared."""
    native = syft.FixedPrecisionTensor.share

    @functools.wraps(native)
    def share(self, *owners, **kwargs):
        shared = native(self, *owners, **kwargs)
        if isinstance(shared.child, Semi2kTensor):
            shared.child.node.one = self.base**self.precision_fractional
        return shared

    syft.FixedPrecisionTensor.share = share


def refuse_what_is_not_overridden():
    """What AdditiveSharingTensor inherits or is hooked with works on pointers, one message an
    operation; on a semi2k tensor it raises: see `wrapper`."""

    def refusal(name):
        def method(self, *args, **kwargs):
            raise NotImplementedError(f"no {name} of a layer: compute with the tensor itself")

        return method

    own = set(AdditiveSharingTensor.__dict__) - {"__new__", "__init__", "__repr__", "__bool__"}
    pass_through = {"copy", "get_class_attributes", "grad", "backward", "torch", "__module__"}
    pass_through |= {"__doc__", "min_value", "max_value", "modulo", "_semi2k_installed"}
    for name in own | set(compat.TENSOR_METHODS):
        if name not in Semi2kTensor.__dict__ and name not in pass_through:
            setattr(Semi2kTensor, name, refusal(name))


def refuse_other_protocols():
    """An operation of another protocol takes any AdditiveSharingTensor for its own."""

    def refuse(tensor):
        raise TypeError(MIXED_PROTOCOLS)

    hook_args.register_forward_func({Semi2kTensor: refuse})
    for name in ("mul", "matmul"):
        native = getattr(AdditiveSharingTensor, name)

        def method(self, other, native=native):
            return refuse(other) if isinstance(other, Semi2kTensor) else native(self, other)

        setattr(AdditiveSharingTensor, name, method)
