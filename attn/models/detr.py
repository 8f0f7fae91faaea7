"""DETR: a Transformer that reads the objects of an image as a set, with slots.

Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko, "End-to-End Object Detection with
Transformers", ECCV 2020, https://arxiv.org/abs/2005.12872, sections 3.2, 4.2 and A.3.

Differs from the paper: maps of queries, keys and values start Xavier-uniform one by
one, while PyTorch starts them as one matrix, a factor of sqrt(2) smaller. Table 3 does
not say what "at input" is for the decoder; here it adds the places of the map to what
the encoder made, once, for keys and values.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn import modules
from attn.models import backbone as backbones
from attn.models import slots
from attn.models.base import Model, numbered
from attn.models.layers.checks import check_heads, check_rates
from attn.models.layers.dense import TORCH, XAVIER, classify, dense
from attn.models.layers.map_positions import DIVISORS, MapPositions, shrink_mask
from attn.models.layers.transformer import DecoderBlock, EncoderBlock, layer_norm
from attn.models.resnet import ResNet
from attn.models.scaling import Width, step_of
from attn.settings import Count, Invalid, Positive

EPSILON = 1e-5  # of the layer norms
Kind = Literal["none", "sine", "learned"]
At = Literal["attention", "input"]


class DETR(Model):
    """DETR: image [B, H, W, C] -> {"logits": [B, L, Q, K + 1], "boxes": [B, L, Q, 4]}.

    Float32, of Q object queries after each of L layers of the decoder, the last of
    which is the prediction. The last class, K, is "no object". Boxes are (x, y) of the
    centre, width and height, as shares of the image without its padding.

    The map of a ResNet goes through a 1x1 convolution to the encoder, and what that
    makes of it is read by the queries in the decoder. Layers are of the Transformer,
    normalised after each sum, with eps 1e-5 and ReLU. After the decoder there is one
    more norm, a linear map to the logits, and an MLP of three layers and a sigmoid to
    the boxes, the same for all L.

    Slots, each of which may be narrowed, layers counting from 0:

        backbone/...    those of `resnet`, such as "backbone/block.residual" and
                        "backbone/stage3/block0/block.residual"; the scope "backbone"
                        may be left out where nothing narrows the place
        encoder.mixer   attention of the places of the map to each other
        decoder.self    attention of the queries to each other
        decoder.cross   attention of the queries to what the encoder made

    The last three are `multi_head` unless they are filled, and an attention that has
    the settings num_heads, kernel_init or attention_dropout gets the model's (Xavier;
    `dropout`), unless the filling gives them. Those of the decoder take token
    attentions that need no grid.

    Attributes:
        num_classes: K.
        masked: whether images have padding, at the right and below. Then the inputs
            are image and image_mask, boolean [B, H, W], and padding is read as zeros
            by the backbone, attention in its slots included, and not at all by the
            Transformer. A training takes it from the data unless it is set.
        backbone: settings of `resnet`, such as {"depth": 101}; {"depth": 8, "layout":
            "cifar", "stem_stride": 2} is a small one of stride 8.
        dilated: whether its last stage is dilated in place of its stride, DETR-DC5.
        frozen_norm: whether its batch normalisation is fixed, as in the paper, where
            the backbone starts with trained weights (`config.model.weights`). One that
            starts from scratch needs False.
        width: of the Transformer.
        num_heads: of its attentions.
        encoder_depth, decoder_depth: how many layers each has.
        mlp_dim: hidden width of the MLP in each layer; 0 has none, but its norm.
        num_queries: Q, the most objects that can be found.
        dropout: rate in the Transformer: after each attention and MLP, after ReLU, and
            of single weights of attention.
        position: what tells places of the map: "sine", sinusoids of row and column
            over the height and width of the image; "learned", one vector for each of 50
            rows and 50 columns; or "none".
        position_at: where it is added: at each "attention", to what queries and keys
            are made of, or once to the "input". Object queries go the same way: they
            are the places of tokens that start as zeros, or these tokens themselves.
        encoder_position, encoder_position_at: these two for the encoder; None is as
            in the decoder.
        auxiliary: whether there are outputs of all layers of the decoder, for losses
            of each; else L is 1.
        other attributes: see `Model`.

    Raises:
        Invalid: when it is made, a backbone that cannot be, heads that do not divide
            the width, a size or rate that cannot be, or an unknown slot, attention or
            setting, or one that does not fit; and learned positions for a larger map,
            when it is called.
    """

    streams: ClassVar = ("dropout",)
    places: ClassVar = {
        **backbones.PLACES,
        **dict.fromkeys(("encoder.mixer", "decoder.self", "decoder.cross"), 1),
    }
    usual_fill: ClassVar = dict.fromkeys(
        ("encoder.mixer", "decoder.self", "decoder.cross"), "multi_head"
    )

    transformers: ClassVar = (
        (r"^backbone/stage(\d+)/block", r"model.backbone.model.layer\1."),
        (r"^backbone/", "model.backbone.model."),
        (r"\bstem_conv\b", "conv1"),
        (r"\bstem_norm\b", "bn1"),
        (r"(layer\d\.\d+/)norm(\d)\b", r"\1bn\2"),
        (r"\bshortcut_conv\b", "downsample.0"),
        (r"\bshortcut_norm\b", "downsample.1"),
        (r"\bmean$", "running_mean"),
        (r"\bvar$", "running_var"),
        (r"^project\b", "model.input_projection"),
        (r"^queries$", "model.query_position_embeddings.weight"),
        (r"^position/(row|column)s$", r"model.position_embedding.\1_embeddings.weight"),
        (r"^(en|de)coder(\d+)/", r"model.\1coder.layers.\2."),
        (r"\.(mixer|self)/", ".self_attn/"),
        (r"\.cross/", ".encoder_attn/"),
        (r"\.norm1\b", ".self_attn_layer_norm"),
        (r"(\.decoder\.\S*)\.norm2\b", r"\1.encoder_attn_layer_norm"),
        (r"\.norm[23]\b", ".final_layer_norm"),
        (r"\.mlp_in\b", ".mlp.fc1"),
        (r"\.mlp_out\b", ".mlp.fc2"),
        (r"/(query|key|value)/", lambda m: f"/{m[1][0]}_proj/"),
        (r"/out/", "/o_proj/"),
        (r"^decoder_norm\b", "model.decoder.layernorm"),
        (r"^classifier\b", "class_labels_classifier"),
        (r"^box(\d)\b", lambda m: f"bbox_predictor.layers.{int(m[1]) - 1}"),
    )

    num_classes: Positive
    masked: bool = False
    backbone: Mapping[str, Any] = backbones.RESNET
    dilated: bool = False
    frozen_norm: bool = True
    width: Positive = 256
    num_heads: Positive = 8
    encoder_depth: Count = 6
    decoder_depth: Positive = 6
    mlp_dim: Count = 2048
    num_queries: Positive = 100
    dropout: float = 0.1
    position: Kind = "sine"
    position_at: At = "attention"
    encoder_position: Kind | None = None
    encoder_position_at: At | None = None
    auxiliary: bool = True

    def __post_init__(self):
        check_heads(self, self.width, self.num_heads)
        check_rates(self, dropout=self.dropout)
        self.backbone = backbones.checked(self.backbone, "DETR")
        for kind, _ in self._positions().values():
            if self.width % DIVISORS[kind]:
                raise Invalid(
                    f"{kind} positions need a width that {DIVISORS[kind]} divides, got"
                    f" width={self.width}"
                )
        super().__post_init__()
        self._resnet(parent=None)
        self._check_slots()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The fields of a batch that it is called with."""
        return ("image", "image_mask") if self.masked else ("image",)

    def scopes(self) -> dict[str, dict]:
        """The backbone with its stages, and the layers, counting from 0."""
        return {
            **backbones.scopes(self.backbone),
            **numbered("encoder", self.encoder_depth),
            **numbered("decoder", self.decoder_depth),
        }

    def given(self) -> FrozenDict:
        """The heads, how their maps start, and what is dropped in attention."""
        return FrozenDict(
            num_heads=self.num_heads,
            kernel_init="xavier",
            attention_dropout=self.dropout,
        )

    def width_settings(self) -> dict[str, Width]:
        """The settings that scale its Transformer, and its backbone if that is trained.

        One with a fixed batch normalisation has the weights of a network as it is.
        """
        own = {
            key: specs
            for key, specs in self.fill.items()
            if not backbones.is_inside(key)
        }
        step = math.lcm(self.num_heads, 4, step_of(own, self.given()))
        found = {"width": Width(self.width, step)}
        if self.mlp_dim:
            found["mlp_dim"] = Width(self.mlp_dim, 1)
        if not self.frozen_norm:
            found |= backbones.width_settings(self, self.backbone)
        return found

    @nn.compact
    def __call__(
        self, image: jax.Array, image_mask: jax.Array | None = None, *, train: bool
    ) -> dict[str, jax.Array]:
        """Classes and boxes.

        Args:
            image: [B, H, W, C].
            image_mask: boolean [B, H, W], False for padding; None has none.
            train: whether to drop, and to normalise by the batch.
        """
        dtype = self.dtype or image.dtype
        if image_mask is not None:
            image = jnp.where(image_mask[..., None], image, 0)
        x = self._resnet(dtype, name="backbone")(image, train=train)
        x = dense(self, "project", x, self.width, TORCH)
        grid = x.shape[1:3]
        mask = None if image_mask is None else shrink_mask(image_mask, grid)
        tokens = x.reshape(len(x), -1, self.width)
        read = {
            "vectors": self._vectors()(grid, mask),
            "mask": None if mask is None else mask.reshape(len(x), -1),
            "train": train,
        }
        memory = self._encode(tokens, grid, **read)
        x = self._decode(memory, **read)
        x = layer_norm(self, "decoder_norm", x, EPSILON)
        logits = classify(self, x, self.num_classes + 1, init=TORCH)
        return {"logits": logits, "boxes": self._boxes(x)}

    def _encode(
        self,
        x: jax.Array,
        grid: tuple[int, int],
        *,
        vectors: Mapping[str, jax.Array],
        mask: jax.Array | None,
        train: bool,
    ) -> jax.Array:
        """Tokens of the map, [B, S, d] -> [B, S, d]."""
        x, position = self._placed("encoder", x, vectors)
        for index in range(self.encoder_depth):
            block = self._block(EncoderBlock, f"encoder{index}", x)
            x = block(x, grid=grid, kv_mask=mask, position=position, train=train)
        return x

    def _decode(
        self,
        memory: jax.Array,
        *,
        vectors: Mapping[str, jax.Array],
        mask: jax.Array | None,
        train: bool,
    ) -> jax.Array:
        """Tokens of the queries after each layer that counts, [B, L, Q, d]."""
        memory, position = self._placed("decoder", memory, vectors)
        shape = (self.num_queries, self.width)
        start = nn.initializers.normal(1.0)
        queries = self.param("queries", start, shape, self.param_dtype)
        queries = queries.astype(memory.dtype)[None]
        x = jnp.broadcast_to(queries, (len(memory), *shape))
        if self.position_at == "attention":
            x = jnp.zeros_like(x)
        else:
            queries = None
        layers = []
        for index in range(self.decoder_depth):
            block = self._block(DecoderBlock, f"decoder{index}", x)
            x = block(
                x,
                memory,
                memory_mask=mask,
                causal=False,
                position=queries,
                memory_position=position,
                train=train,
            )
            layers.append(x)
        return jnp.stack(layers if self.auxiliary else layers[-1:], axis=1)

    def _boxes(self, x: jax.Array) -> jax.Array:
        """Boxes of tokens, [..., d] -> [..., 4] in float32."""
        x = x.astype(jnp.float32)
        for name in ("box1", "box2"):
            x = nn.relu(dense(self, name, x, self.width, TORCH))
        return nn.sigmoid(dense(self, "box3", x, 4, TORCH))

    def _block(self, kind: type, name: str, x: jax.Array) -> nn.Module:
        return kind(
            given=self.given(),
            mlp_dim=self.mlp_dim,
            activation="relu",
            epsilon=EPSILON,
            norm_first=False,
            dropout=self.dropout,
            mlp_init=XAVIER,
            **self.within(name, x.dtype),
        )

    @nn.nowrap  # so that its attentions are looked at outside of any module
    def _resnet(self, dtype: jnp.dtype | None = None, **where: Any) -> ResNet:
        """The backbone; `where` has its name, or parent=None for one by itself."""
        return backbones.build(
            self,
            self.backbone,
            dtype,
            dilated=self.dilated,
            frozen=self.frozen_norm,
            **where,
        )

    def _positions(self) -> dict[str, tuple[Kind, At]]:
        """What tells places in encoder, if there is one, and decoder, and where."""
        found = {"decoder": (self.position, self.position_at)}
        if self.encoder_depth:
            kind, at = self.encoder_position, self.encoder_position_at
            found["encoder"] = (kind or self.position, at or self.position_at)
        return found

    def _placed(
        self, side: str, x: jax.Array, vectors: Mapping[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array | None]:
        """What encoder or decoder takes: tokens, and vectors for each attention."""
        kind, at = self._positions().get(side, ("none", "input"))
        if kind == "none":
            return x, None
        if at == "input":
            return x + vectors[kind].astype(x.dtype), None
        return x, vectors[kind]

    def _vectors(self) -> MapPositions:
        kinds = frozenset(kind for kind, _ in self._positions().values())
        return MapPositions(kinds, self.width, self.param_dtype, name="position")

    def _check_slots(self) -> None:
        """Refuses places in scopes that lack them, and attentions that do not fit."""
        for key, specs in self.fill.items():
            if backbones.check_scope(key) == backbones.SCOPE:
                continue
            place = key.rpartition("/")[2]
            for spec in specs:
                reason = self._unfit(place, spec["name"])
                if reason:
                    found = [n for n in modules.names() if not self._unfit(place, n)]
                    raise Invalid(
                        f"slot {key!r}: {spec['name']} {reason} (valid:"
                        f" {', '.join(found)})"
                    )

    def _unfit(self, place: str, name: str) -> str:
        """Why an attention cannot be at a place of the Transformer, or ""."""
        module, in_decoder = modules.find(name), place.startswith("decoder")
        on_map, supports = slots.contract(module) == "map", slots.supports(module)
        kind, at = self._positions().get(place.partition(".")[0], ("none", "input"))
        placed = at == "attention" and (in_decoder or kind != "none")
        if in_decoder and (on_map or "grid" in supports):
            return "needs a grid, and object queries have none"
        if place == "decoder.cross" and "cross" not in supports:
            return "cannot attend to other tokens than its own"
        if self.masked and place != "decoder.self" and "kv_mask" not in supports:
            return "cannot leave out padding"
        if placed and not slots.takes(module, "q_position"):
            return "takes no positions for queries and keys"
        return ""
