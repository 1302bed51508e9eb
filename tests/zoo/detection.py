"""Object detectors."""

from functools import partial

import torch

from upright import Boxes, Invariant, Points

from .rows import Row, transformers

BOXES = partial(Boxes, format="cxcywh", normalized=True)
POINTS = partial(Points, normalized=True)
SHARED = partial(Invariant, axis=None)
PREDICTED = {"pred_boxes": BOXES}
STAGES = {"embedding_size": 8, "hidden_sizes": [8, 8, 12, 16], "depths": [1, 1, 1, 1]}
SMALL = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_queries": 5,
    "num_labels": 3,
}
POINTS_EACH = {"encoder_n_points": 2, "decoder_n_points": 2}


def resnet(*stages):
    return transformers().ResNetConfig(
        layer_type="basic", out_features=[f"stage{i}" for i in stages], **STAGES
    )


def detr(family="Detr", head="ObjectDetection", stages=(4,), **settings):
    hf = transformers()
    config = getattr(hf, f"{family}Config")(backbone_config=resnet(*stages), **{**SMALL, **settings})
    return getattr(hf, f"{family}For{head}")(config).eval()


def segmenting_detr(family="Detr"):
    heads = {"encoder_attention_heads": 8, "decoder_attention_heads": 8, "d_model": 64}
    return detr(family, "Segmentation", stages=(1, 2, 3, 4), **heads)


def deformable(**settings):
    levels = {"d_model": 32, "num_feature_levels": 3, **POINTS_EACH}
    return detr("DeformableDetr", stages=(2, 3, 4), **levels, **settings)


def rt_detr(family="RTDetr", backbone=None, **settings):
    hf = transformers()
    if backbone is None:
        features = ["stage2", "stage3", "stage4"]
        backbone = hf.RTDetrResNetConfig(layer_type="basic", out_features=features, **STAGES)
    config = getattr(hf, f"{family}Config")(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 12, 16],
        feat_strides=[8, 16, 32],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        encode_proj_layers=[2],
        d_model=16,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_queries=5,
        num_labels=3,
        num_denoising=4,
        eval_size=None,
        anchor_image_size=None,
        **{"decoder_n_points": 2, **settings},
    )
    return getattr(hf, f"{family}ForObjectDetection")(config).eval()


def d_fine():
    backbone = transformers().HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 8, 12],
        stage_mid_channels=[4, 4, 4, 4],
        stage_out_channels=[8, 8, 12, 16],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
        **STAGES,
    )
    return rt_detr("DFine", backbone, decoder_n_points=[2, 2, 2])


def yolos():
    hf = transformers()
    config = hf.YolosConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[64, 96],
        patch_size=16,
        num_detection_tokens=5,
        num_labels=3,
    )
    return hf.YolosForObjectDetection(config).eval()


def owl(family="OwlViT"):
    hf = transformers()
    layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        "vocab_size": 50,
        "max_position_embeddings": 6,
        "bos_token_id": 48,
        "eos_token_id": 49,
        "pad_token_id": 0,
    }
    config = getattr(hf, f"{family}Config")(
        text_config={**layers, **text},
        vision_config={**layers, "image_size": 48, "patch_size": 16},
        projection_dim=16,
    )
    return getattr(hf, f"{family}ForObjectDetection")(config).eval()


def grounding_dino(family="GroundingDino"):
    hf = transformers()
    text = hf.BertConfig(
        vocab_size=1200,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    backbone = hf.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = getattr(hf, f"{family}Config")(
        text_config=text,
        backbone_config=backbone,
        num_feature_levels=4,
        max_text_len=16,
        **{**SMALL, **POINTS_EACH, "d_model": 32},
    )
    return getattr(hf, f"{family}ForObjectDetection")(config).eval()


def two_queries(batch, size, generator):
    """Return pictures with two texts each, one row a text, as OWL takes them."""
    ids = torch.randint(1, 48, (2 * batch, 6), generator=generator)
    return {"pixel_values": torch.rand(batch, 3, *size, generator=generator), "input_ids": ids}


def one_phrase(batch, size, generator):
    """Return pictures with one text each, as Grounding DINO takes them."""
    ids = torch.randint(1100, 1200, (batch, 6), generator=generator)
    return {"pixel_values": torch.rand(batch, 3, *size, generator=generator), "input_ids": ids}


def _row(name, make, outputs=PREDICTED, sizes=((64, 64), (64, 96)), call=None, inputs=None):
    inputs = {"pixel_values": "image", **(inputs or {})}
    return Row(name, make, inputs=inputs, outputs=outputs, sizes=sizes, call=call, tolerance=2e-5)


_MAPS = {"encoder_last_hidden_state": "image"}
_RT = {**PREDICTED, **_MAPS, "intermediate_reference_points": BOXES, "enc_topk_bboxes": BOXES}
_POINTS = {**PREDICTED, "init_reference_points": POINTS, "intermediate_reference_points": POINTS}
_BOXES = {**PREDICTED, "init_reference_points": BOXES, "intermediate_reference_points": BOXES}
_OWL = {"outputs": {**PREDICTED, "text_model_output": SHARED}, "sizes": ((48, 48),), "call": two_queries}
_TEXTS = {"inputs": {"input_ids": SHARED}}
ROWS = [
    _row("DetrForObjectDetection", detr),
    _row("DetrForSegmentation", segmenting_detr, {**PREDICTED, "pred_masks": "mask"}),
    _row(
        "ConditionalDetrForSegmentation",
        partial(segmenting_detr, "ConditionalDetr"),
        {**PREDICTED, "pred_masks": "mask"},
    ),
    _row("ConditionalDetrForObjectDetection", partial(detr, "ConditionalDetr")),
    _row("TableTransformerForObjectDetection", partial(detr, "TableTransformer")),
    _row("DeformableDetrForObjectDetection", deformable, _POINTS),
    _row(
        "DeformableDetrForObjectDetection",
        partial(deformable, with_box_refine=True, two_stage=True, two_stage_num_proposals=5),
        _BOXES,
    ),
    _row("RTDetrForObjectDetection", rt_detr, _RT),
    _row("RTDetrV2ForObjectDetection", partial(rt_detr, "RTDetrV2"), _RT),
    _row(
        "DFineForObjectDetection",
        d_fine,
        {**_RT, "initial_reference_points": BOXES, "intermediate_hidden_states": partial(Invariant, axis=1)},
    ),
    _row("YolosForObjectDetection", yolos),
    _row("OwlViTForObjectDetection", owl, **_OWL, **_TEXTS),
    _row("Owlv2ForObjectDetection", partial(owl, "Owlv2"), **_OWL, **_TEXTS),
    *(
        _row(
            f"{family}ForObjectDetection",
            partial(grounding_dino, family),
            {**_BOXES, "encoder_pred_boxes": BOXES},
            call=one_phrase,
        )
        for family in ("GroundingDino", "MMGroundingDino")
    ),
]
