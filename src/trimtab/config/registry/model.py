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
    "encoder": Spec(
        "trimtab.model.encoder:Encoder",
        "transformer in which every position sees its whole document; for classes, numbers and hidden tokens",
        "Devlin et al. 2019, arXiv 1810.04805",
        compilable=True,
        capturable=True,
    ),
    "encoder_decoder": Spec(
        "trimtab.model.encoder_decoder:EncoderDecoder",
        "an encoder that reads and a decoder that writes",
        "Vaswani et al. 2017, section 3.1",
        compilable=True,
        capturable=True,
    ),
    "mlp": Spec(
        "trimtab.model.perceptron:MultilayerPerceptron",
        "layers with BatchNorm over the mean of a text's embeddings; for classes and numbers",
        "Iyyer et al. 2015, doi 10.3115/v1/P15-1162; Ioffe and Szegedy 2015, arXiv 1502.03167",
    ),
    "cnn": Spec(
        "trimtab.model.convolutional:ConvolutionalNetwork",
        "convolutions with BatchNorm over a text's embeddings, and the largest value of each; for classes and numbers",
        "Kim 2014, arXiv 1408.5882; Ioffe and Szegedy 2015, arXiv 1502.03167",
    ),
    "hugging_face": Spec(
        "trimtab.model.hugging_face:HuggingFaceModel",
        "a model of transformers, from a local folder or its configuration, of any task",
        "Wolf et al. 2020, arXiv 1910.03771",
        needs=("huggingface",),
        compilable=True,
    ),
    "custom": Spec(
        "trimtab.model.foreign:ForeignModel",
        "any nn.Module, of every task but contrastive; says the contract",
        "own",
    ),
}
