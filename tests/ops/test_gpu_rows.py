"""Where the GPU kernels find the steps of a tensor: at one distance after the other, whatever strides torch gave it."""

import pytest
import torch

from ssm_kit.ops import _gpu
from ssm_kit.ops.gated_delta import _launch as gated_delta

WHOLE = torch.arange(3 * 5 * 4 * 12.0).reshape(3, 5, 4, 12)


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cut", [slice(0, 12), slice(0, 6), slice(1, 7), slice(0, 12, 2)])
def test_rows_are_read_where_they_lie_or_copied_right(batch, length, cut):
    whole = WHOLE[:batch, :length]
    time_first, heads_first = whole.transpose(0, 1).contiguous().transpose(0, 1), whole.transpose(1, 2).contiguous()
    expanded = whole[:1].expand(batch, -1, -1, -1)
    for tensor in (whole, time_first, heads_first.transpose(1, 2), expanded, whole[:, :1].expand(-1, length, -1, -1)):
        cut_out = tensor[..., cut]
        for read in (_gpu.rows(cut_out), gated_delta._rows(cut_out)[0]):
            flat = read.as_strided((batch * length, *read.shape[2:]), (read.stride(1), read.shape[-1], 1))
            torch.testing.assert_close(flat.reshape(cut_out.shape), cut_out, rtol=0, atol=0)


def test_what_lies_right_is_not_copied():
    joint = torch.randn(2, 5, 40)
    for tensor in (joint, joint[:, :, 8:24], joint[:, :1], joint.transpose(0, 1)[:1].transpose(0, 1)):
        assert _gpu.rows(tensor).data_ptr() == tensor.data_ptr()


def test_the_copy_engine_gets_multiples_of_16_bytes():
    buffer = torch.randn(2 * 5 * 16 + 1)
    x, stride = gated_delta._rows(buffer[1:].view(2, 5, 16))
    assert (x.data_ptr() % 16, stride) == (0, 16)
    torch.testing.assert_close(x, buffer[1:].view(2, 5, 16), rtol=0, atol=0)
