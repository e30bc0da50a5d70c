"""Models."""

from trimtab.config.registry import Spec

MODELS: dict[str, Spec] = {
    "decoder": Spec(
        "trimtab.model.transformer:Decoder",
        "decoder-only transformer; GPT-2 and Llama shapes are settings of it",
        "Radford et al. 2019; Touvron et al. 2023, arXiv 2302.13971",
        compilable=True,
        capturable=True,
    ),
    "custom": Spec("trimtab.model.foreign:ForeignModel", "any nn.Module that turns tokens into logits, wrapped", "own"),
}
