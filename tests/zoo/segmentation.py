"""Semantic, instance and panoptic segmentation."""

from dataclasses import replace
from functools import partial

import torch

from upright import Image, Invariant

from .classification import MAPS, MOBILE, MOBILE_V2, PYRAMID, SQUARE, STAGES, SWIN, VIT
from .rows import Row, make, transformers

_SIZES = ((32, 32), (32, 48))
_DEEP = {**VIT, "num_hidden_layers": 4}
_UPER = {"auxiliary_channels": 8, "num_labels": 4, "pool_scales": [1, 2]}


def _row(family, outputs=None, sizes=_SIZES, head="ForSemanticSegmentation", **settings):
    build = make(f"{family}{head}", f"{family}Config", **{"num_labels": 4, **settings})
    return Row(f"{family}{head}", build, outputs={"logits": "mask", **(outputs or {})}, sizes=sizes)


def _upernet():
    hf = transformers()
    backbone = hf.ConvNextConfig(**STAGES, out_features=["stage1", "stage2", "stage3", "stage4"])
    settings = {**_UPER, "hidden_size": 8, "auxiliary_in_channels": 16}
    return hf.UperNetForSemanticSegmentation(hf.UperNetConfig(backbone_config=backbone, **settings)).eval()


def _decoder(**settings):
    return {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 12,
        "decoder_ffn_dim": 12,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "num_queries": 5,
        **settings,
    }


def _maskformer():
    hf = transformers()
    stages = ["stage1", "stage2", "stage3", "stage4"]
    config = hf.MaskFormerConfig(
        backbone_config=hf.ResNetConfig(embedding_size=8, **STAGES, out_features=stages),
        decoder_config=hf.DetrConfig(**_decoder()),
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=4,
        output_auxiliary_logits=True,
    )
    return hf.MaskFormerForInstanceSegmentation(config).eval()


_MASK2 = {
    "hidden_dim": 32,
    "mask_feature_size": 32,
    "encoder_feedforward_dim": 12,
    "dim_feedforward": 12,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "num_queries": 5,
    "num_labels": 4,
}


def _swin():
    hf = transformers()
    stages = ["stage1", "stage2", "stage3", "stage4"]
    settings = {**SWIN, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2], "image_size": 64, "patch_size": 4}
    return hf.SwinConfig(**settings, out_features=stages)


def _mask2former():
    hf = transformers()
    config = hf.Mask2FormerConfig(
        backbone_config=_swin(), feature_size=32, output_auxiliary_logits=True, **_MASK2
    )
    return hf.Mask2FormerForUniversalSegmentation(config).eval()


def _oneformer():
    hf = transformers()
    without = {k: v for k, v in _MASK2.items() if k != "mask_feature_size"}
    config = hf.OneFormerConfig(
        backbone_config=_swin(), conv_dim=32, mask_dim=32, query_dec_layers=1, task_seq_len=7,
        text_encoder_width=32, text_encoder_num_layers=1, text_encoder_vocab_size=40, **without,
    )  # fmt: skip
    return hf.OneFormerForUniversalSegmentation(config).eval()


def _with_task(batch, size, generator):
    return {
        "pixel_values": torch.rand(batch, 3, *size, generator=generator),
        "task_inputs": torch.randint(0, 40, (batch, 7), generator=generator),
    }


def _with_text(batch, size, generator):
    texts = torch.randint(2, 40, (batch, 7), generator=generator)
    texts[:, -1] = 1
    return {"pixel_values": torch.rand(batch, 3, *size, generator=generator), "input_ids": texts}


def _clipseg():
    hf = transformers()
    text = {
        "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 12, "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    config = hf.CLIPSegConfig(
        vision_config=_DEEP, text_config=text, projection_dim=16, extract_layers=[1, 2], reduce_dim=8,
        decoder_num_attention_heads=2, decoder_intermediate_size=12,
    )  # fmt: skip
    return hf.CLIPSegForImageSegmentation(config).eval()


MASKS = {"masks_queries_logits": "mask"}
QUERIES = {**MASKS, "encoder_hidden_states": "image", "pixel_decoder_hidden_states": "image"}
_LAST = {"encoder_last_hidden_state": "image", "pixel_decoder_last_hidden_state": "image"}


def _mixed(data, size):
    """Maps of backbone and pixel decoder, then queries."""
    return Image(data) if data.ndim == 4 else Invariant(data)


_MASKFORMER = {**QUERIES, **_LAST, "hidden_states": _mixed}
_MASK2FORMER = {
    **QUERIES,
    **_LAST,
    "auxiliary_logits": MASKS,
    "transformer_decoder_hidden_states": partial(Invariant, axis=1),
}
_ONEFORMER = {
    **QUERIES,
    "auxiliary_predictions": MASKS,
    "transformer_decoder_hidden_states": MASKS,
    "transformer_decoder_mask_predictions": "mask",
    "transformer_decoder_auxiliary_predictions": MASKS,
}
_EOMT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
_FORMER_SIZES = ((64, 64), (64, 96))

_ROWS = [
    _row("Beit", sizes=SQUARE, out_indices=[0, 1, 2, 3], **_UPER, **_DEEP),
    _row(
        "DPT",
        None,
        SQUARE,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        **_DEEP,
    ),
    _row("Data2VecVision", sizes=SQUARE, out_indices=[0, 1, 2, 3], **_UPER, **_DEEP),
    _row("MobileNetV2", MAPS, depth_multiplier=0.25, output_stride=8),
    _row("MobileViT", MAPS, aspp_out_channels=8, **MOBILE),
    _row("MobileViTV2", MAPS, aspp_out_channels=8, **MOBILE_V2),
    _row("Segformer", MAPS, **PYRAMID),
    Row("UperNetForSemanticSegmentation", _upernet, outputs={"logits": "mask", **MAPS}, sizes=_SIZES),
    Row(
        "CLIPSegForImageSegmentation",
        _clipseg,
        outputs={"logits": "mask", "decoder_output": {"logits": "mask"}},
        sizes=SQUARE,
        call=_with_text,
    ),
    Row("MaskFormerForInstanceSegmentation", _maskformer, outputs=_MASKFORMER, sizes=_FORMER_SIZES),
    Row("Mask2FormerForUniversalSegmentation", _mask2former, outputs=_MASK2FORMER, sizes=_FORMER_SIZES),
    Row(
        "OneFormerForUniversalSegmentation",
        _oneformer,
        outputs=_ONEFORMER,
        sizes=_FORMER_SIZES,
        call=_with_task,
    ),
    Row(
        "EomtForUniversalSegmentation",
        make(
            "EomtForUniversalSegmentation",
            "EomtConfig",
            num_queries=5,
            num_blocks=1,
            num_labels=4,
            num_upscale_blocks=1,
            **_EOMT,
        ),
        outputs={"masks_queries_logits": "mask"},
        sizes=SQUARE,
    ),
]

ROWS = [replace(row, hidden=True) for row in _ROWS]
