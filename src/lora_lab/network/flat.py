"""Many tensors as views of one, so that an optimizer walks over one tensor per part."""

import torch
from torch.nn import Parameter


def flatten(parameters: list[Parameter]) -> Parameter:
    """One flat tensor that the given ones become views of, and so do their gradients.

    An optimizer that works elementwise takes the same steps on the flat tensor as on the parts. The
    parts keep gradients that are never None: clear them by ``flat.grad.zero_()``.
    """
    flat = Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
    flat.grad = torch.zeros_like(flat)
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = flat.data[start:end].view_as(parameter)
        parameter.grad = flat.grad[start:end].view_as(parameter)
        start = end
    return flat
