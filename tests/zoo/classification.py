"""Image classifiers: class scores do not move, maps among the hidden states do, tokens do not."""

from dataclasses import replace

from .rows import Row, make

VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
STAGES = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]}
SWIN = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [1, 1, 1],
    "num_heads": [2, 2, 2],
    "window_size": 4,
}
PYRAMID = {**STAGES, "num_attention_heads": [1, 2, 2, 2], "decoder_hidden_size": 8}
HGNET = {
    **STAGES,
    "embedding_size": 8,
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 8, 12, 16],
    "stage_mid_channels": [4, 4, 8, 8],
    "stage_out_channels": [8, 12, 16, 20],
    "stage_numb_of_layers": [1, 1, 1, 1],
    "stage_num_blocks": [1, 1, 1, 1],
}
MOBILE = {
    "sizes": ((64, 64),),
    "hidden_sizes": [8, 8, 8],
    "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16],
    "num_attention_heads": 2,
}
MOBILE_V2 = {"sizes": ((64, 64),), "width_multiplier": 0.125, "base_attn_unit_dims": [64, 64, 64]}
SQUARE = ((32, 32),)
MAPS = {"hidden_states": "image"}
GRIDS = {"reshaped_hidden_states": "image"}


def _row(
    family, outputs=None, sizes=((32, 32), (32, 48)), head="ForImageClassification", config=None, **settings
):
    settings = {"num_labels": 5, **settings}
    build = make(f"{family}{head}", config or f"{family}Config", **settings)
    return Row(f"{family}{head}", build, outputs={"logits": "logits", **(outputs or {})}, sizes=sizes)


_TEACHER = {"cls_logits": "logits", "distillation_logits": "logits"}
_CLIP = {"vision_config": VIT, "text_config": {"hidden_size": 16, "num_attention_heads": 2}}

_ROWS = [
    _row("Beit", sizes=SQUARE, use_relative_position_bias=True, **VIT),
    _row("Bit", MAPS, embedding_size=8, num_groups=2, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    _row("CLIP", sizes=SQUARE, **_CLIP),
    _row("ConvNext", MAPS, **STAGES),
    _row("ConvNextV2", MAPS, **STAGES),
    _row("Cvt", MAPS, embed_dim=[8, 8, 8], num_heads=[1, 2, 2], depth=[1, 2, 3]),
    _row("Data2VecVision", sizes=SQUARE, use_relative_position_bias=True, **VIT),
    _row("DeiT", sizes=SQUARE, **VIT),
    _row("DeiT", _TEACHER, SQUARE, "ForImageClassificationWithTeacher", **VIT),
    _row("Dinov2", **VIT),
    _row("Dinov2WithRegisters", **VIT),
    _row("EfficientNet", MAPS, width_coefficient=0.25, depth_coefficient=0.2, hidden_dim=320),
    _row("FocalNet", GRIDS, embed_dim=8, **STAGES),
    _row("HGNetV2", MAPS, **HGNET),
    _row(
        "Hiera",
        None,
        ((64, 64),),
        image_size=[64, 64],
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
    ),
    _row("IJepa", sizes=SQUARE, **VIT),
    _row(
        "Levit",
        sizes=((64, 64),),
        image_size=64,
        hidden_sizes=[8, 16, 24],
        num_attention_heads=[2, 2, 2],
        depths=[1, 1, 1],
        key_dim=[4, 4, 4],
    ),
    _row(
        "Levit",
        _TEACHER,
        ((64, 64),),
        "ForImageClassificationWithTeacher",
        image_size=64,
        hidden_sizes=[8, 16, 24],
        num_attention_heads=[2, 2, 2],
        depths=[1, 1, 1],
        key_dim=[4, 4, 4],
    ),
    _row("MetaClip2", sizes=SQUARE, **_CLIP),
    _row("MobileNetV1", MAPS, depth_multiplier=0.25),
    _row("MobileNetV2", MAPS, depth_multiplier=0.25),
    _row("MobileViT", MAPS, **MOBILE),
    _row("MobileViTV2", MAPS, **MOBILE_V2),
    _row("PoolFormer", MAPS, **STAGES),
    _row("Pvt", None, SQUARE, image_size=32, **PYRAMID),
    _row("PvtV2", MAPS, image_size=32, **PYRAMID),
    _row("RegNet", MAPS, groups_width=4, embedding_size=8, **STAGES),
    _row("ResNet", MAPS, embedding_size=8, **STAGES),
    _row("Segformer", MAPS, **PYRAMID),
    _row("Siglip", sizes=SQUARE, **_CLIP),
    _row("SwiftFormer", MAPS, depths=[1, 1, 1, 1], embed_dims=[8, 8, 8, 8]),
    _row("Swin", GRIDS, **SWIN),
    _row("Swinv2", GRIDS, **SWIN),
    _row("TextNet", MAPS, hidden_sizes=[8, 8, 8, 8, 8], stem_out_channels=8),
    _row("ViT", sizes=SQUARE, **VIT),
    _row("ViTMSN", sizes=SQUARE, **VIT),
]

ROWS = [replace(row, hidden=True) for row in _ROWS]
