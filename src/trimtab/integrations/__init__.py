"""trimtab inside other trainers: callbacks for Hugging Face's Trainer and Lightning, and a logger for any loop.

`from trimtab.integrations.huggingface import TrimtabCallback` and `from trimtab.integrations.lightning import
TrimtabCallback`, each of which needs the package that it is for; `trimtab.TrainingLogger`, and `trimtab.init`, `log`
and `finish`, which need nothing, not even torch.
"""
