"""PySyft 0.2.9, unmodified, on today's Python, torch, numpy and protobuf.

PySyft 0.2.9 was written in 2020 for Python 3.8, torch 1.4, numpy 1.18 and protobuf 3. Call
`prepare()` once, before `import syft`: it checks the versions, imports syft behind stand-ins for
the modules that are gone, and gives torch back the behaviour of 1.4 where syft depends on it. No
installed file is touched. This is the only module of the project that knows of versions; each
function below mends one thing and says why.
"""

import atexit
import collections.abc
import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import sys
import types
import warnings

SUPPORTED = {"syft": "0.2.9", "torch": "2.14", "torchvision": "0.29"}
SUPPORTED_PYTHON = ((3, 11), (3, 13))

# The names that syft hooks. Left alone it hooks all that `dir(torch)` and `dir(torch.Tensor)` list,
# which was right for torch 1.4; torch 2 lists 821 functions and 276 methods more, its own internals
# among them, and hooking those breaks torch. These are the ones that the tutorial and syft's own
# protocols call.
TENSOR_METHODS = """
    __abs__ __add__ __and__ __bool__ __div__ __floordiv__ __ge__ __getitem__ __gt__ __iadd__
    __imul__ __invert__ __isub__ __itruediv__ __le__ __len__ __lt__ __matmul__ __mod__ __mul__
    __neg__ __or__ __pow__ __radd__ __rmul__ __rpow__ __rsub__ __rtruediv__ __setitem__ __sub__
    __truediv__ __xor__ abs add add_ addmm all any argmax argmin asin backward bool ceil chunk clone
    contiguous copy_ cos cosh cumsum detach diag dim div div_ dot double eq equal exp expand fill_
    flatten flip float floor fmod gather ge gt half index_select inverse item le log long lt
    masked_fill matmul max mean min mm mul mul_ narrow ne neg neg_ new norm numel numpy permute pow
    random_ reciprocal register_hook relu repeat reshape reshape_as resize_ roll round rsqrt scatter
    select sigmoid sign sin sinh split sqrt squeeze stack std sub sub_ sum t take tanh tolist trace
    transpose tril type type_as unbind unfold uniform_ unique unsqueeze var view view_as where zero_
""".split()
TORCH_FUNCTIONS = {
    "torch": """
        abs add addmm all any arange argmax argmin asin cat chunk clone cos cumsum detach diag div
        dot eq equal exp eye flatten flip fmod gather ge gt index_select le log lt matmul max mean
        min mm mul neg norm numel ones ones_like pow rand randint randn randperm reciprocal relu
        reshape roll round select sigmoid sign sin sinh split sqrt squeeze stack std sub sum t take
        tanh transpose unbind unsqueeze var where zeros zeros_like
    """.split(),
    "torch.functional": ["norm", "split"],
    "torch.nn.functional": """
        adaptive_avg_pool2d avg_pool2d batch_norm conv2d dropout linear max_pool2d pad relu sigmoid
        tanh
    """.split(),
}


class UnsupportedVersion(RuntimeError):
    """The Python, torch, torchvision or syft at hand is not one this module was made for."""


def prepare():
    """Make `import syft` and `syft.TorchHook(torch)` work. Idempotent.

    Raises:
        UnsupportedVersion: with one line that says what was found and what is needed.
    """
    if "syft" in sys.modules:
        if not getattr(sys.modules["syft"], "_smpc_prepared", False):
            raise UnsupportedVersion("smpc.compat.prepare() must be called before `import syft`")
        return
    check_versions()
    protobuf_in_python()
    with stand_ins():
        torch = importlib.import_module("torch")
        give_scriptmodule_its_old_name(torch)
        syft = importlib.import_module("syft")
    divide_integers_as_integers(torch)
    linear_in_python(torch)
    sgd_for_chains(torch)
    hook_only_known_names()
    pickle_tensors_as_data()
    accept_none_in_protobuf_lists()
    sign_bits_in_fss()
    no_remote_deletes_at_exit()
    warnings.filterwarnings("ignore", "Use dtype instead of field")  # syft's advice to itself
    syft._smpc_prepared = True


def check_versions():
    """Refuse what the patches below were not written for, before anything is imported."""
    low, high = SUPPORTED_PYTHON
    if not low <= sys.version_info[:2] <= high:
        found = ".".join(map(str, sys.version_info[:3]))
        raise UnsupportedVersion(
            f"Python {found} is not supported: use {low[0]}.{low[1]} to {high[0]}.{high[1]}"
        )
    for name, wanted in SUPPORTED.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "none"
        if found != wanted and not found.startswith(wanted + "."):
            raise UnsupportedVersion(
                f"{name} {wanted} is needed, {found} is installed: "
                "run `pip install --no-deps -r requirements.txt`"
            )


def protobuf_in_python():
    """syft_proto's generated modules are of protobuf 3.12; only the pure-Python backend of later
    releases still accepts them, and the backend is chosen when protobuf is first imported."""
    os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"


@contextlib.contextmanager
def stand_ins():
    """Modules that syft imports and that are gone, or that the tutorial has no use for.

    They exist while syft is being imported and no longer, so that no other package meets them.
    """

    class Unavailable:
        """Stands for every name in aiortc: WebRTC grid nodes, which nothing here starts."""

        def __init__(self, *args, **kwargs):
            raise RuntimeError("aiortc (WebRTC grid nodes) is not installed")

    def nothing_else(*args):
        raise ImportError("not available in this stand-in")

    modules = {
        # gone from setuptools 81; syft_proto reads its proto.json with it
        "pkg_resources": {"resource_string": pkgutil.get_data},
        # gone from Python 3.12; syft compares the version of TensorFlow with it, if there is one
        "distutils": {},
        "distutils.version": {"LooseVersion": nothing_else},
        # gone from torch 1.13
        "torch._six": {
            "string_classes": (str, bytes),
            "int_classes": int,
            "container_abcs": collections.abc,
        },
        "aiortc": {"RTCPeerConnection": Unavailable, "RTCSessionDescription": Unavailable},
        "aiortc.contrib": {},
        "aiortc.contrib.signaling": {
            "CopyAndPasteSignaling": Unavailable,
            "object_to_string": nothing_else,
            "object_from_string": nothing_else,
        },
    }
    if importlib.util.find_spec("shaloop") is None:
        # the hash of the fss protocol has a wheel for x86-64 Linux alone; `fss_is_available` tells
        modules["shaloop"] = {"sha256_loop_func": nothing_else, "sha512_loop_func": nothing_else}
    hidden = {name: sys.modules.get(name) for name in modules}
    for name, contents in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(contents)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name, module in hidden.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def fss_is_available():
    """Whether shaloop, which fss hashes with, is here: it has a wheel for x86-64 Linux alone."""
    return importlib.util.find_spec("shaloop") is not None


def give_scriptmodule_its_old_name(torch):
    """syft_proto lists the types it can serialise by their torch 1.4 module path."""
    types_by_name = importlib.import_module("syft_proto").proto_info["TYPES"]
    for name in ("ScriptModule", "ScriptFunction", "TopLevelTracedModule"):
        cls = getattr(torch.jit, name)
        types_by_name[f"{cls.__module__}.{cls.__name__}"] = types_by_name[f"torch.jit.{name}"]


def divide_integers_as_integers(torch):
    """`/` of integer tensors truncates toward zero, and so does every `//`, as in torch 1.4: shares
    and fixed-point values are integers, and syft writes each truncation as `/`. A float divided by
    anything is as today."""
    Tensor = torch.Tensor

    def integers(*values):
        return all(
            not (v.is_floating_point() or v.is_complex())
            if type(v) in (Tensor, torch.nn.Parameter)
            else type(v) is int
            for v in values
        )

    def true_division(native, truncated):
        def method(self, other, **kwargs):
            if integers(self, other) and not kwargs.get("rounding_mode"):
                return truncated(self, other, rounding_mode="trunc")
            return native(self, other, **kwargs)

        return method

    def floor_division(self, other):
        return native_div(self, other, rounding_mode="trunc")

    def reflected(division):
        return lambda self, other, **kwargs: division(other, self, **kwargs)

    native_div, native_div_ = torch.div, Tensor.div_
    torch.div = Tensor.div = Tensor.__truediv__ = true_division(native_div, native_div)
    Tensor.div_ = Tensor.__itruediv__ = true_division(native_div_, native_div_)
    Tensor.__rtruediv__ = reflected(torch.div)
    Tensor.__floordiv__ = floor_division
    Tensor.__rfloordiv__ = reflected(floor_division)
    Tensor.__ifloordiv__ = lambda self, other: native_div_(self, other, rounding_mode="trunc")


def linear_in_python(torch):
    """`F.linear` is C++ now; syft's AutogradTensor needs to see the product and the sum in it."""

    def linear(input, weight, bias=None):
        if input.dim() == 2 and bias is not None:
            return torch.addmm(bias, input, weight.t())
        output = input.matmul(weight.t())
        return output if bias is None else output + bias

    torch.nn.functional.linear = linear


def sgd_for_chains(torch):
    """`SGD.step` and `zero_grad` in the form of torch 1.4 for parameters that hold a syft chain:
    torch 2 calls `add_(grad, alpha=-lr)`, which no syft tensor has, and sets the gradient of the
    empty wrapper to None in place of the chain's. Other parameters keep torch's own."""
    pointer, SGD = sys.modules["syft"].PointerTensor, torch.optim.SGD
    native_step, native_zero_grad = SGD.step, SGD.zero_grad

    def chained(optimizer):
        return any(hasattr(p, "child") for g in optimizer.param_groups for p in g["params"])

    def step(self, closure=None):
        if not chained(self):
            return native_step(self, closure)
        if closure is not None:
            raise NotImplementedError("encrypted SGD takes no closure")
        for group in self.param_groups:
            for option in ("momentum", "dampening", "weight_decay", "nesterov", "maximize"):
                value = group[option]
                if not isinstance(value, (int, float)) or value:
                    raise NotImplementedError(f"encrypted SGD has no {option}: leave it out")
            for p in group["params"]:
                if p.grad is not None:
                    grad = p.grad * group["lr"]
                    # (of a pointer with local_autograd=True it is a bare pointer)
                    p.data.sub_(grad.wrap() if isinstance(grad, pointer) else grad)

    def zero_grad(self, set_to_none=True):
        if not chained(self):
            return native_zero_grad(self, set_to_none)
        for group in self.param_groups:
            for p in group["params"]:
                if not isinstance(p.child, pointer):
                    p.child.grad = None
                elif p.grad is not None:  # torch's own, at the worker
                    p.grad.zero_()

    SGD.step, SGD.zero_grad = step, zero_grad


def hook_only_known_names():
    """Hook `TENSOR_METHODS` and `TORCH_FUNCTIONS` in place of everything that torch has."""
    syft = sys.modules["syft"]
    TorchHook = syft.TorchHook

    def methods(self, tensor_type):
        return {name for name in TENSOR_METHODS if hasattr(tensor_type, name)}

    def functions(self):
        for module_name, module in syft.torch.torch_modules.items():
            for name in TORCH_FUNCTIONS[module_name]:
                if not hasattr(module, f"native_{name}"):
                    self._perform_function_overloading(module_name, module, name)

    TorchHook._which_methods_should_we_auto_overload = methods
    TorchHook._hook_torch_module = functions


def pickle_tensors_as_data():
    """Since torch 1.11 a pickled tensor takes its Python attributes along; syft hangs the owner and
    the chain there, which cannot be pickled and are sent beside it anyway. Send the data alone."""
    torch = sys.modules["torch"]
    serde = importlib.import_module("syft.serde.msgpack.torch_serde")
    native_serializer = serde.torch_tensor_serializer

    def serializer(worker, tensor):
        bare = tensor.native_data
        if isinstance(tensor, torch.nn.Parameter):
            bare = torch.nn.Parameter(bare, requires_grad=tensor.requires_grad)
        elif tensor.requires_grad:
            bare.requires_grad_()
        return native_serializer(worker, bare)

    serde.torch_tensor_serializer = serializer


def accept_none_in_protobuf_lists():
    """syft extends repeated fields with None for "no tags", which protobuf 3 took as nothing."""
    containers = importlib.import_module("google.protobuf.internal.containers")
    for cls in (
        containers.RepeatedScalarFieldContainer,
        containers.RepeatedCompositeFieldContainer,
    ):
        native_extend = cls.extend

        def extend(self, values, native_extend=native_extend):
            if values is not None:
                native_extend(self, values)

        cls.extend = extend


def sign_bits_in_fss():
    """fss writes `(-1) ** bits` with unsigned bits: a float array in numpy 1, an overflow error in
    numpy 2. Its arrays become ones that take the exponent as signed."""
    numpy = importlib.import_module("numpy")
    fss = importlib.import_module("syft.frameworks.torch.mpc.fss")

    class SignBits(numpy.ndarray):
        def __rpow__(self, base):
            return numpy.float64(base) ** self.view(numpy.ndarray).astype(numpy.float64)

    fss.SignBits = SignBits
    SignBits.__module__, SignBits.__qualname__ = fss.__name__, "SignBits"  # so that it pickles
    native_array = fss.Array
    fss.Array = lambda *shape: native_array(*shape).view(SignBits)


def no_remote_deletes_at_exit():
    """A pointer's `__del__` asks its worker to delete the object, also when the interpreter is
    already taking modules apart; then that ends in a traceback on stderr."""
    ObjectPointer = importlib.import_module("syft.generic.pointers.object_pointer").ObjectPointer

    def forget_pointers():
        del ObjectPointer.__del__

    atexit.register(forget_pointers)
