"""torchao complains about CUDA libraries when transformers imports it, in the last lines of every run of the tests."""

import logging

for noisy in ("torchao", "torch.utils._pytree"):
    logging.getLogger(noisy).setLevel(logging.ERROR)
