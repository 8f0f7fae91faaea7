"""Makes detr.npz: outputs of tiny DETRs of transformers, computed in float64.

    python tests/golden/make_detr.py

Needs torch and transformers. Weights, statistics of batch normalisation and images are
not stored: `draw` and `batch` make them, here and in the tests; names and shapes of the
state dicts are stored.
"""

import pathlib
import zlib

import numpy as np

BACKBONE = {
    "embedding_size": 8,
    "hidden_sizes": [16, 24, 32, 40],
    "depths": [1, 1, 1, 1],
    "layer_type": "bottleneck",
    "out_features": ["stage4"],
}
DETR = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
    "num_queries": 5,
    "num_labels": 4,
}
CASES = {"sine": {}, "learned": {"position_embedding_type": "learned"}}
CANVAS = (170, 135)  # of which the images fill the upper left
SIZES = ((170, 100), (90, 135), (131, 67))


def draw(name, shape):
    """An array for a name, of about the size that a trained network has there."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return rng.uniform(0.5, 1.5, shape)
    if "embeddings" in name:
        return rng.normal(size=shape)
    width = np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.3
    sharp = 3 if "_proj." in name else 1.4  # so that queries differ
    return sharp * width * rng.normal(size=shape)


def batch():
    """Images [3, H, W, 3], zeros where they are padded, and masks [3, H, W]."""
    rows, columns = (np.arange(side) for side in CANVAS)
    mask = np.stack([(rows < h)[:, None] & (columns < w) for h, w in SIZES])
    images = np.random.default_rng(0).normal(size=(*mask.shape, 3))
    return images * mask[..., None], mask


def outputs(model, torch):
    """Logits and boxes after every layer of the decoder, [3, L, Q, ...]."""
    tokens = []
    for layer in model.model.decoder.layers:
        layer.register_forward_hook(lambda _, __, y: tokens.append(y))
    images, mask = batch()
    images = torch.tensor(images).permute(0, 3, 1, 2)
    found = model(pixel_values=images, pixel_mask=torch.tensor(mask))
    tokens = torch.stack([t if torch.is_tensor(t) else t[0] for t in tokens], dim=1)
    tokens = model.model.decoder.layernorm(tokens)
    logits = model.class_labels_classifier(tokens)
    boxes = model.bbox_predictor(tokens).sigmoid()
    torch.testing.assert_close(logits[:, -1], found.logits)
    torch.testing.assert_close(boxes[:, -1], found.pred_boxes)
    return {"logits": logits, "boxes": boxes}


def main():
    import torch
    import transformers

    torch.set_default_dtype(torch.float64)
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    arrays = {"versions": np.array(versions)}
    for case, settings in CASES.items():
        backbone = transformers.ResNetConfig(**BACKBONE)
        config = transformers.DetrConfig(
            use_timm_backbone=False, backbone_config=backbone, **DETR, **settings
        )
        model = transformers.DetrForObjectDetection(config).double().eval()
        state = {
            name: torch.tensor(draw(name, tuple(value.shape)))
            for name, value in model.state_dict().items()
        }
        model.load_state_dict(state)
        with torch.no_grad():
            for name, value in outputs(model, torch).items():
                arrays[f"{case}/{name}"] = value.numpy()
        arrays[f"{case}/names"] = np.array(list(state))
        arrays[f"{case}/shapes"] = np.array(
            ["x".join(map(str, value.shape)) for value in state.values()]
        )
    np.savez_compressed(pathlib.Path(__file__).with_name("detr.npz"), **arrays)


if __name__ == "__main__":
    main()
