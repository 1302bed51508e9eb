"""Promptable segmentation."""

import torch

from .rows import Row, transformers

SIDE = 64
"""Side of the models' canvas."""


def prompt_encoder(side=SIDE):
    return {"hidden_size": 16, "image_size": side, "patch_size": 16, "mask_input_channels": 4}


DECODER = {
    "hidden_size": 16,
    "mlp_dim": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
}


def sam(family="Sam", **decoder):
    hf = transformers()
    vision = {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 16,
        "mlp_dim": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "num_pos_feats": 8,
    }
    config = getattr(hf, f"{family}Config")(
        vision_config=vision, prompt_encoder_config=prompt_encoder(), mask_decoder_config=DECODER | decoder
    )
    return getattr(hf, f"{family}Model")(config).eval()


def sam2():
    hf = transformers()
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 12, 16, 20],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 2, 2, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [2, 2],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [20, 16, 12, 8],
        "backbone_feature_sizes": [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
        "fpn_hidden_size": 16,
    }
    config = hf.Sam2Config(
        vision_config=vision, prompt_encoder_config=prompt_encoder(), mask_decoder_config=DECODER
    )
    return hf.Sam2Model(config).eval()


def sam3_tracker():
    hf = transformers()
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": SIDE,
    }
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "backbone_feature_sizes": [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
        "fpn_hidden_size": 16,
    }
    config = hf.Sam3TrackerConfig(
        vision_config=vision, prompt_encoder_config=prompt_encoder(), mask_decoder_config=DECODER
    )
    return hf.Sam3TrackerModel(config).eval()


def prompts(batch, size, generator):
    """Return prompts of every sort on pictures of a size: clicks with labels, boxes, masks.

    Coordinates are quarters of pixels, so that moving them rounds nothing.
    """
    side = torch.tensor([size[1], size[0]])
    draws = (torch.rand(batch, 2, 5, 2, generator=generator) * side * 4).round() / 4
    corners = draws[:, :, 3:].sort(2).values
    return {
        "input_points": draws[:, :, :3],
        "input_labels": torch.randint(0, 2, (batch, 2, 3), generator=generator),
        "input_boxes": corners.flatten(2),
        "input_masks": torch.randn(batch, 1, SIDE // 4, SIDE // 4, generator=generator),
    }


def call(batch, size, generator):
    return {
        "pixel_values": torch.rand(batch, 3, *size, generator=generator),
        **prompts(batch, size, generator),
    }


INPUTS = {"pixel_values": "image", "input_points": "points", "input_boxes": "boxes", "input_masks": "mask"}
OUTPUTS = {"pred_masks": "mask"}
MODELS = {
    "SamModel": sam,
    "SamHQModel": lambda: sam("SamHQ", vit_dim=16),
    "Sam2Model": sam2,
    "Sam3TrackerModel": sam3_tracker,
}
ROWS = [
    Row(name, make, inputs=INPUTS, outputs=OUTPUTS, sizes=((SIDE, SIDE),), call=call)
    for name, make in MODELS.items()
]
