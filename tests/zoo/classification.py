"""Image classifiers."""

from .rows import Row, make

_TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}

ROWS = [
    Row(
        "ViTForImageClassification",
        make("ViTForImageClassification", "ViTConfig", image_size=32, patch_size=8, num_labels=5, **_TINY),
        outputs={"logits": "logits"},
        sizes=((32, 32),),
    ),
]
