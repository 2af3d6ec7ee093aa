"""Where a training runs."""

import torch

from schemas.errors import ConfigurationError


def device_of(name: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means here; raises ConfigurationError."""
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigurationError("--device", "there is no CUDA device")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")
