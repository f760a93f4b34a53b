"""The passes of a feature configuration: one network at one image size each.

A method may read two networks (PFM), or one at several sizes (CS-Flow, DifferNet). Features are stored a pass
and a tap, so that methods share what they have in common.
"""

from __future__ import annotations

from nfbmr.config import DetailFeatureConfig, FeatureConfig, TargetConfig
from nfbmr.features.inputs import in_patches


def passes_of(config: FeatureConfig) -> tuple[FeatureConfig, ...]:
    """Each network at each scale: source first, then target; within a network the scales as they are listed.

    The detail look, where there is one, comes last: the source network at another size and at other taps.

    Tables of features are in this order too, and within a pass in the order of its taps.

    Returns:
        Configurations of one network at one scale, otherwise as `config`; :attr:`FeatureConfig.shape` is then
        what the network sees: sides are multiples of its patch, where it has one.

    Example:
        >>> two = FeatureConfig(size=768, scales=(1.0, 0.5))
        >>> [one.shape for one in passes_of(two)]
        [(768, 768), (384, 384)]
        >>> target = TargetConfig(backbone="resnet50", taps=("layer1",))
        >>> [one.backbone for one in passes_of(FeatureConfig(target=target))]
        ['tf_efficientnet_lite0', 'resnet50']
    """
    source = {"backbone": config.backbone, "weights": config.weights, "taps": config.taps}
    networks = [source]
    if config.target.backbone is not None:
        networks.append(config.target.model_dump())
    passes = [
        config.model_copy(
            update={
                **network,
                "scales": (scale,),
                "target": TargetConfig(),
                "detail": DetailFeatureConfig(),
            }
        )
        for network in networks
        for scale in config.scales
    ]
    if config.detail.taps:
        size = config.detail.pixels
        look = {
            "taps": config.detail.taps,
            "size": size,
            "scales": (1.0,),
            "symmetry": config.detail.averaged_over,
        }
        alone = {"target": TargetConfig(), "detail": DetailFeatureConfig()}
        passes.append(config.model_copy(update=look | alone))
    return tuple(map(in_patches, passes))
