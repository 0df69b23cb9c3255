"""FixedPrecisionTensors over semi2k tensors: what syft gets wrong is right, or refused."""

import functools

import syft

from smpc.semi2k.tensor import MIXED_PROTOCOLS, AdditiveSharingTensor, Semi2kTensor

FixedPrecisionTensor = syft.FixedPrecisionTensor


def install():
    """Make the changes."""
    tell_what_one_is()
    check_mixtures()


def tell_what_one_is():
    """How large a value may be is promised in numbers, and a semi2k tensor has integers: what a
    number is in these, it learns when it is shared."""
    native = FixedPrecisionTensor.share

    @functools.wraps(native)
    def share(self, *owners, **kwargs):
        shared = native(self, *owners, **kwargs)
        if isinstance(shared.child, Semi2kTensor):
            shared.child.node.one = self.base**self.precision_fractional
        return shared

    FixedPrecisionTensor.share = share


def check_mixtures():
    """FixedPrecisionTensor adds and compares numbers of different precision, compares with an
    integer as if it were already scaled, turns public @ secret into secret @ public, and makes None
    of a number to the power 0. Where a semi2k tensor takes part the first is refused and the others
    are right."""
    comparisons = ("__gt__", "__ge__", "__lt__", "__le__", "eq", "__eq__")
    products = ("matmul", "__matmul__", "mm")
    for name in (
        "add",
        "__add__",
        "__radd__",
        "sub",
        "__sub__",
        "mul_and_div",
        *products,
        *comparisons,
    ):
        native = getattr(FixedPrecisionTensor, name)

        @functools.wraps(native)
        def method(self, other, *args, name=name, native=native, **kwargs):
            children = self.child, getattr(other, "child", None)
            if not any(isinstance(child, Semi2kTensor) for child in children):
                return native(self, other, *args, **kwargs)
            if isinstance(other, FixedPrecisionTensor):
                refuse_mixture(self, other)
                if name in products and not isinstance(self.child, AdditiveSharingTensor):
                    product = FixedPrecisionTensor(owner=self.owner, **self.get_class_attributes())
                    product.child = other.child.rmatmul(self.child)
                    return product.truncate(self.precision_fractional)
            elif name in comparisons:
                other = round(other * self.base**self.precision_fractional)
            return native(self, other, *args, **kwargs)

        setattr(FixedPrecisionTensor, name, method)

    native_pow = FixedPrecisionTensor.pow

    def pow(self, power):
        shared = isinstance(self.child, Semi2kTensor)
        return self * 0 + 1 if shared and power == 0 else native_pow(self, power)

    FixedPrecisionTensor.pow = FixedPrecisionTensor.__pow__ = pow


def refuse_mixture(one, other):
    """Raise where two fixed-precision tensors differ in precision or in protocol."""
    if (one.base, one.precision_fractional) != (other.base, other.precision_fractional):
        raise ValueError(
            f"a precision of {one.precision_fractional} digits and one of "
            f"{other.precision_fractional} cannot be mixed"
        )
    shared = [x.child for x in (one, other) if isinstance(x.child, AdditiveSharingTensor)]
    if len({type(child) for child in shared}) > 1:
        raise TypeError(MIXED_PROTOCOLS)
