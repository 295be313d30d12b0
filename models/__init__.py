"""The networks: a table of them, and one way to build each."""

from torch import nn

from .allconv import AllConvNet
from .densenet import DenseNet
from .foreign import HEAD_ALIASES, check_contract, clean_name, infer, load_function
from .layers import differentiate_twice, fold, has_kernels, use_kernels
from .plain import PACKAGES, call_builder, count_numbers, feature_width, linear_head
from .resnet import ResNet
from .wrn import WideResNet

# name -> builder(num_classes, layers, widen_factor, droprate); a network ignores what it has not
MODELS = {
    "wrn": lambda num_classes, layers, widen_factor, droprate: WideResNet(
        layers, num_classes, widen_factor, droprate
    ),
    "resnet18": lambda num_classes, *_: ResNet((2, 2, 2, 2), num_classes),
    "resnet34": lambda num_classes, *_: ResNet((3, 4, 6, 3), num_classes),
    "densenet": lambda num_classes, layers, widen_factor, droprate: DenseNet(num_classes, droprate),
    "allconv": lambda num_classes, *_: AllConvNet(num_classes),
}


def build(
    arch: str,
    num_classes: int,
    layers: int = 40,
    widen_factor: int = 2,
    droprate: float = 0.3,
    image_size: int | None = None,
) -> nn.Module:
    """The network of a MODELS name, or what ``module:function``, ``timm:NAME`` or
    ``torchvision:NAME`` returns for num_classes.

    A network maps images (N,3,H,W) to (logits (N,C), features (N,D)), features being the input of
    its linear head ``fc``, and has ``feature_dim`` D and ``num_classes`` C; one of the user's own
    that returns logits alone is adapted (plain.py). ``layers`` and ``widen_factor`` are for the
    WRN, ``droprate`` for the WRN and the DenseNet, ``image_size``, the side of its images, for the
    user's own. ValueError or TypeError for an unknown name, a function that cannot be had, or a
    network that is not such a one.
    """
    if num_classes < 1:
        raise ValueError(f"a network needs at least one class, not {num_classes}")
    if ":" in arch:
        function = load_function(arch)
        try:
            model = call_builder(function, num_classes)
        except Exception as error:  # whatever the user's function raises
            raise ValueError(
                f"'{arch}' failed for {num_classes} classes ({type(error).__name__}: {error})"
            ) from error
        return check_contract(model, arch, num_classes, image_size)
    if arch not in MODELS:
        raise ValueError(
            f"unknown network '{arch}'. There is: {', '.join(MODELS)}, "
            "or module:function of your own, timm:NAME, torchvision:NAME"
        )
    return MODELS[arch](num_classes, layers, widen_factor, droprate)
