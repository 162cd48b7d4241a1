"""The settings of a language model that every algorithm for them shares."""

from typing import Any

import jax

from jaxrl.settings import check_unread, config, leaf, static
from jaxrl.types import InputError


@config
class LMConfig:
    """Which language model, what of it is trained, and how it is computed."""

    name: str = static("smollm2-135m")
    """An asset's name, a folder of safetensors or of an adapter, a .gguf file, or "organisation/model" of the Hugging
    Face hub. An adapter is merged into its base, unless lora_continue is set."""
    grow_vocabulary: bool = static(False)
    """Add rows to the embedding for ids of the tokenizer that the model has none for, each the mean of the others."""
    dtype: str = static("float32", choices=("float32", "bfloat16", "float64"))
    """Of activations and matrix products. Parameters, softmax and log-probabilities are at least float32."""
    remat: bool | None = static(None)
    """Recompute each layer in the backward pass: less memory, a third more arithmetic. None: on CPU, where that costs
    hardly any time, and not on GPU and TPU."""
    logit_chunk: int | None = static(128, at_least=1)
    """Tokens whose logits exist at the same time; None forms them all."""
    lora_rank: int = static(0, at_least=0)
    """Rank of low-rank adapters, which alone are then trained; 0 trains every parameter."""
    lora_alpha: float = leaf(16.0, 1e-6)
    """Adapters are scaled by lora_alpha / lora_rank."""
    lora_targets: tuple[str, ...] = static(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    )
    """The projections that have adapters."""
    lora_rank_stabilized: bool = static(False)
    """rsLoRA (Kalajdzievski 2023, arXiv 2312.03732): scale by lora_alpha / √lora_rank, so that a higher rank does not
    learn the slower."""
    lora_continue: bool = static(False)
    """Go on training the adapter in the folder `name`: rank, alpha, targets and scaling are its own. The reference of
    preference learning is then what was given: the base with this adapter, as it was."""

    defines_task = ("name",)  # with its tokenizer: losses are per token

    def validate(self) -> None:
        """Raises InputError for settings of adapters where there are none."""
        if not self.lora_rank:
            unread = ("lora_alpha", "lora_targets", "lora_rank_stabilized")
            check_unread(self, unread, "with lora_rank = 0", "set lora_rank to at least 1")


@config
class ModelParallel:
    """Over which devices a language model and its rows are spread. What is computed is the same, but for rounding, and
    a run may go on with other values of these."""

    data: int | None = static(None, at_least=1)
    """Parts that the rows of a batch are dealt in, each with all that the axes below leave whole. None takes what
    devices those leave, as many as come out even, where `run` or `finetune` drives, and one elsewhere."""
    fsdp: int = static(1, at_least=1)
    """Devices that parameters, gradients and Adam's moments are dealt to, and rows as well: for a model that one has no
    room for."""
    tensor: int = static(1, at_least=1)
    """Devices that each layer's heads and width, and the vocabulary, are dealt to, which exchange activations in every
    layer: at most as many as are linked closely, and a divisor of the key-value heads."""

    only_places = True  # nothing that is learned depends on it


@config
class Sampling:
    """How completions are sampled."""

    max_new_tokens: int = static(64, at_least=1)
    """Tokens of a completion, its end token included, at most."""
    temperature: float = leaf(1.0, 0.0)
    """Logits are divided by it in sampling, and not where the loss scores what was said; 0 is greedy."""
    top_k: int = static(0, at_least=0)
    """Only the k likeliest tokens; 0 is off."""
    top_p: float | None = static(None)
    """Only the fewest likeliest tokens that have this probability together."""
    min_p: float | None = static(None)
    """Only tokens at least this share as likely as the likeliest."""

    def validate(self) -> None:
        """Raises InputError for a share that is none."""
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise InputError(f"{name} = {value} must be above 0 and at most 1; leave it out to switch it off")

    def check_varied(self, per_prompt: int) -> None:
        """Raises InputError where all completions of a prompt are the same, of which nothing is learned."""
        temperature = self.temperature
        if per_prompt > 1 and not isinstance(temperature, jax.core.Tracer) and temperature == 0:
            raise InputError(f"temperature = 0 says the same thing {per_prompt} times; take 1.0")

    def options(self) -> dict[str, Any]:
        """As `generate` takes them."""
        shares = {"top_p": 1.0 if self.top_p is None else self.top_p, "min_p": self.min_p or 0.0}
        return {n: getattr(self, n) for n in ("max_new_tokens", "temperature", "top_k")} | shares
