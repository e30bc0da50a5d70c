"""trimtab inside other trainers: callbacks that write our record while Hugging Face's Trainer or Lightning trains.

`from trimtab.integrations.huggingface import TrimtabCallback` and `from trimtab.integrations.lightning import
TrimtabCallback`; each needs the package that it is for.
"""
