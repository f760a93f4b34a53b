"""The passes of a feature configuration: one network at one image size each.

A method may read two networks (PFM), or one at several sizes (CS-Flow, DifferNet). Features are stored a pass
and a tap, so that methods share what they have in common.
"""

from __future__ import annotations

from nfbmr.config import FeatureConfig, TargetConfig


def passes_of(config: FeatureConfig) -> tuple[FeatureConfig, ...]:
    """Each network at each scale: source first, then target; within a network the scales as they are listed.

    Tables of features are in this order too, and within a pass in the order of its taps.

    Returns:
        Configurations of one network at one size, otherwise as `config`.

    Example:
        >>> two = FeatureConfig(size=768, scales=(1.0, 0.5))
        >>> [one.size for one in passes_of(two)]
        [768, 384]
        >>> target = TargetConfig(backbone="resnet50", taps=("layer1",))
        >>> [one.backbone for one in passes_of(FeatureConfig(target=target))]
        ['tf_efficientnet_lite0', 'resnet50']
    """
    source = {"backbone": config.backbone, "weights": config.weights, "taps": config.taps}
    networks = [source]
    if config.target.backbone is not None:
        networks.append(config.target.model_dump())
    return tuple(
        config.model_copy(
            update={
                **network,
                "size": round(config.size * scale),
                "scales": (1.0,),
                "target": TargetConfig(),
            }
        )
        for network in networks
        for scale in config.scales
    )
